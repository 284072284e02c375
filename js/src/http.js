/** The transport over HTTP: `POST <database>/exchange`. */
import { LevelError } from './errors.js'

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
 */

/**
 * Make a transport to a database.
 * @param {string | URL} url of the database, such as `https://example.org/v1/notes`
 * @param {Options} [options]
 * @returns {Exchange} it rejects with a `LevelError` if the response holds no reply of the protocol
 */
export function httpExchange(url, { token, fetch = globalThis.fetch, signal } = {}) {
  return async (body) => {
    const secret = typeof token === 'function' ? await token() : token
    const headers = {
      'content-type': 'application/json',
      ...(secret && { authorization: `Bearer ${secret}` }),
    }
    const response = await fetch(`${url}/exchange`, {
      method: 'POST',
      headers,
      body,
      signal,
      redirect: 'error',
    })
    const text = await response.text()
    // A captive portal or a proxy may respond with a page of HTML.
    const isJson = response.headers.get('content-type')?.startsWith('application/json')
    const reply = isJson ? JSON.parse(text) : { message: 'the response is not JSON' }
    if (reply.kind) return text
    const { code = 'LEVEL_TRANSPORT', message } = reply
    throw new LevelError(code, `${url} answered ${response.status}: ${message}`, response.status)
  }
}
