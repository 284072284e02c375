/** The transport over HTTP: `POST <database>/exchange`. */
import { LevelError } from './errors.js'
import { MAX_REPLY_BYTES } from './limits.js'

/**
 * A transport: sends one request to a server, and resolves to the server's reply, both JSON text.
 * @typedef {(request: string) => Promise<string>} Exchange
 */

/**
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token] a bearer token, or a function that is called
 *   for one before each request
 * @property {typeof fetch} [fetch] replaces the global `fetch`
 * @property {AbortSignal} [signal] aborts the request under way, and the session
 * @property {number} [timeout] seconds without a byte after which a request fails; 30 by default
 */

/** The header by which a client recognises the server: every response of the server has it. */
const SERVER_HEADER = 'treehub-level'
/** Bytes of a refusal, decoded. */
const MAX_REFUSAL_BYTES = 64 << 10
/** Bytes per second below which a response is given up. */
const MIN_RATE = 4 << 10

/**
 * Make a transport to a database.
 * @param {string | URL} url of the database, such as `https://example.org/v1/notes`
 * @param {Options} [options]
 * @returns {Exchange} it rejects with a `LevelError` if there is no response, or if the response
 *   holds no reply of the protocol
 */
export function httpExchange(url, { token, fetch = globalThis.fetch, signal, timeout = 30 } = {}) {
  return async (body) => {
    const secret = typeof token === 'function' ? await token() : token
    const headers = {
      'content-type': 'application/json',
      ...(secret && { authorization: `Bearer ${secret}` }),
    }
    const call = new AbortController()
    const abort = () => call.abort(signal?.reason)
    signal?.addEventListener('abort', abort)
    const watchdog = new Watchdog(call, timeout)
    try {
      signal?.throwIfAborted()
      const response = await fetch(`${url}/exchange`, {
        method: 'POST',
        headers,
        body,
        signal: call.signal,
        redirect: 'error',
      })
      return await readResponse(url, response, watchdog)
    } catch (error) {
      if (signal?.aborted || error instanceof LevelError) throw error
      const failure = new LevelError('LEVEL_TRANSPORT', `${url} could not be reached: ${error}`)
      throw Object.assign(failure, { cause: error })
    } finally {
      watchdog.stop()
      signal?.removeEventListener('abort', abort)
      call.abort() // ends a response that was not read to its end
    }
  }
}

/** Aborts a request whose response does not arrive, or arrives too slowly. */
class Watchdog {
  #received = 0
  #timer

  /** @param {AbortController} call @param {number} timeout in seconds */
  constructor(call, timeout) {
    this.call = call
    this.timeout = timeout
    this.started = performance.now()
    this.restart()
  }

  /** Wait for the next bytes. */
  restart() {
    clearTimeout(this.#timer)
    const abort = () => this.call.abort(new Error(`no byte arrived for ${this.timeout} seconds`))
    this.#timer = setTimeout(abort, this.timeout * 1000)
  }

  /** Count bytes that have arrived. @param {number} bytes */
  feed(bytes) {
    this.#received += bytes
    const overtime = (performance.now() - this.started) / 1000 - this.timeout
    if (overtime > this.#received / MIN_RATE) throw new Error('the response arrives too slowly')
    this.restart()
  }

  stop() {
    clearTimeout(this.#timer)
  }
}

/**
 * Read a response.
 * @param {string | URL} url
 * @param {Response} response
 * @param {Watchdog} watchdog
 * @returns {Promise<string>} the reply
 */
async function readResponse(url, response, watchdog) {
  const { status, headers } = response
  const isJson = headers.get('content-type')?.startsWith('application/json') ?? false
  const isReply = isJson && (status === 200 || status === 409)
  // A captive portal, a proxy or a gateway may answer in the server's place. The reply to an
  // exchange proves by its nonce that it is the server's.
  if (!isReply && !headers.has(SERVER_HEADER)) throw foreign(url, status)
  const text = await readText(response, isReply ? MAX_REPLY_BYTES : MAX_REFUSAL_BYTES, watchdog)
  if (status === 200 && isJson) return text
  const { kind, code, message } = parseObject(text)
  if (status === 409 && kind) return text
  const isUnauthorized = status === 401 && code === 'LEVEL_UNAUTHORIZED'
  if (!headers.has(SERVER_HEADER) || !code || (status === 401 && !isUnauthorized)) {
    throw foreign(url, status)
  }
  throw new LevelError(`${code}`, `${url} answered ${status}: ${message}`, status)
}

/**
 * The error for a response of another program: the server is unreachable. A 401 has no `status`,
 * since it says nothing about the token for this server.
 * @param {string | URL} url @param {number} status
 */
function foreign(url, status) {
  return new LevelError(
    'LEVEL_TRANSPORT',
    `${url} could not be reached: another program answered in the server's place, with status ` +
      `${status}. It is a captive portal, a proxy or a gateway, or the URL is not that of a server`,
    status === 401 ? undefined : status,
  )
}

/**
 * Read the body of a response, and count its bytes after decompression: a few kilobytes of gzip
 * can decode to gigabytes.
 * @param {Response} response @param {number} limit in bytes @param {Watchdog} watchdog
 * @returns {Promise<string>}
 */
async function readText(response, limit, watchdog) {
  if (response.body === null) return ''
  const reader = response.body.getReader()
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  let size = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return text + decoder.decode()
    size += value.length
    watchdog.feed(value.length)
    if (size > limit) {
      throw new LevelError(
        'LEVEL_TRANSPORT',
        `the response has more than ${limit} bytes: it is not one of this request`,
        response.status,
      )
    }
    text += decoder.decode(value, { stream: true })
  }
}

/**
 * The members of a JSON object; none if the text is not one.
 * @param {string} text
 * @returns {any}
 */
function parseObject(text) {
  try {
    return Object(JSON.parse(text))
  } catch {
    return {}
  }
}
