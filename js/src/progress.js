/**
 * The progress that a server's replies must bring, so that every session ends: the rules of
 * `docs/protocol.md`, as in the Python client. A server that is damaged or hostile could keep a
 * session going for ever.
 */
import { LevelError } from './errors.js'
import { utf8Length } from './json.js'

/** @import { Reply, Request } from './messages.js' */

/**
 * Resets of a session; its forks; its rejections without a later change or a value of the key; its
 * pages that lack the part of a fill or the values that were requested.
 */
const MAX_FRUITLESS = 8
/** Short pages, and short parts of a fill, that announce more. */
const MAX_SHORT_PAGES = 1000
/** Changes from which on a page is no short one. */
const SHORT_CHANGES = 1000
/**
 * Bytes of changes from which on a page is no short one. A server that is short of memory ends a
 * page after 64 KiB, and before that if the next change does not fit.
 */
const SHORT_BYTES = 8 << 10
/** Exchanges of a session. */
const MAX_ROUNDS = 100_000

/** Counts the replies of one session that bring it no nearer to its end. */
export class ProgressCheck {
  #rounds = 0
  #resets = 0
  #forks = 0
  #rejections = 0
  #withheld = 0
  #shortPages = 0
  /** How far the page before moved the CID, if it announced more. */
  #moved = 0
  #pulledTo = -1
  /** The rejected keys whose later changes or values are still to come. @type {Set<string>} */
  #owed = new Set()

  /**
   * Count a reply that has been applied.
   * @param {Request} request
   * @param {Reply} reply
   * @throws {LevelError} `LEVEL_PROTOCOL`: the session makes no progress
   */
  check(request, reply) {
    const { kind } = reply
    if (++this.#rounds >= MAX_ROUNDS) {
      throw endless(`the session has not ended after ${MAX_ROUNDS} exchanges`)
    }
    if (kind === 'reset' && ++this.#resets >= MAX_FRUITLESS) {
      throw endless(`the server reset this client ${MAX_FRUITLESS} times in one session`)
    }
    if (kind === 'forked' && ++this.#forks >= MAX_FRUITLESS) {
      throw endless(`the server refused the id of this client ${MAX_FRUITLESS} times`)
    }
    if (kind === 'page') this.#checkPage(request, reply)
  }

  /** @param {Request} request @param {Reply} page */
  #checkPage(request, page) {
    // The client has pulled by other means meanwhile, or begun a reset.
    if (request.cid !== this.#pulledTo) this.#owed.clear()
    this.#pulledTo = page.cid
    for (const key of page.rejected) this.#owed.add(key)
    for (const { key } of [...page.rows, ...page.values]) this.#owed.delete(key)
    const moved = page.cid - request.cid
    if (page.more) {
      this.#countShort(request, page.rows, this.#moved + moved)
    } else {
      this.#checkEnd(request, page)
    }
    this.#moved = page.more ? moved : 0
  }

  /**
   * Check a page that reaches the server's head: it has the values and the entries that were asked
   * for, as many as fit beside its changes.
   * @param {Request} request @param {Reply} page
   */
  #checkEnd(request, page) {
    const { fill } = page
    if (fill && !fill.end) this.#countShort(request, fill.entries, fill.entries.length)
    const isOwedPart = request.fill !== null && request.push === null && fill === undefined
    const isOwedValue = request.read !== undefined && page.values.length === 0
    if ((isOwedPart || isOwedValue) && page.rows.length + page.values.length === 0) {
      if (++this.#withheld >= MAX_FRUITLESS) {
        throw endless(`the server withheld entries that were requested ${MAX_FRUITLESS} times`)
      }
    }
    if (this.#owed.size === 0) return
    this.#owed.clear()
    if (++this.#rejections >= MAX_FRUITLESS) {
      throw endless(
        `the server rejected changes without a later change of their keys ${MAX_FRUITLESS} times`,
      )
    }
  }

  /**
   * Count a page, or a part of a fill, that announces more, if it is shorter than a server makes it
   * that has more. A page ends before changes that belong together, which the next page holds.
   * @param {Request} request
   * @param {{ key: string, value?: string }[]} rows
   * @param {number} moved how far this one and the one before moved the client
   */
  #countShort(request, rows, moved) {
    const size = rows.reduce((sum, { key, value = '' }) => sum + utf8Length(key + value), 0)
    const isShort = moved < Math.min(request.limit, SHORT_CHANGES) && size < SHORT_BYTES
    this.#shortPages = isShort ? this.#shortPages + 1 : 0
    if (this.#shortPages >= MAX_SHORT_PAGES) {
      throw endless(`the server sent ${MAX_SHORT_PAGES} short pages that announce another one`)
    }
  }
}

/** @param {string} reason */
function endless(reason) {
  const advice = 'All replies so far were applied, and local changes are kept'
  return new LevelError('LEVEL_PROTOCOL', `${reason}: it is damaged or broken. ${advice}`)
}
