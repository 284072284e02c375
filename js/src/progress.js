/**
 * The progress that a server's replies must bring, so that every session ends: the rules of
 * `docs/protocol.md`, as in the Python client. A server that is damaged or hostile could keep a
 * session going for ever.
 */
import { LevelError } from './errors.js'
import { utf8Length } from './json.js'

/** @import { Reply, Request } from './messages.js' */

/** Resets of a session; its forks; its rejections without a later change of the key. */
const MAX_FRUITLESS = 8
/** Short pages in succession that announce more. */
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
  #shortPages = 0
  /** How far the page before moved the CID, if it announced more. */
  #moved = 0
  #pulledTo = -1
  /** The rejected keys whose later changes are still to be pulled. @type {Set<string>} */
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
    for (const { key } of page.rows) this.#owed.delete(key)
    const moved = this.#moved + page.cid - request.cid
    this.#moved = page.more ? page.cid - request.cid : 0
    if (page.more) {
      this.#shortPages = isShort(request, page, moved) ? this.#shortPages + 1 : 0
      if (this.#shortPages >= MAX_SHORT_PAGES) {
        throw endless(`the server sent ${MAX_SHORT_PAGES} short pages that announce another one`)
      }
    } else if (this.#owed.size > 0) {
      this.#owed.clear()
      if (++this.#rejections >= MAX_FRUITLESS) {
        throw endless(
          `the server rejected changes without a later change of their keys ${MAX_FRUITLESS} times`,
        )
      }
    }
  }
}

/**
 * True if a page is shorter than a server makes it that has more. A page ends before changes that
 * belong together, which the next page holds.
 * @param {Request} request @param {Reply} page
 * @param {number} moved how far this page and the one before moved the CID
 */
function isShort(request, page, moved) {
  if (moved >= Math.min(request.limit, SHORT_CHANGES)) return false
  const size = page.rows.reduce((sum, { key, value = '' }) => sum + utf8Length(key + value), 0)
  return size < SHORT_BYTES
}

/** @param {string} reason */
function endless(reason) {
  const advice = 'All replies so far were applied, and local changes are kept'
  return new LevelError('LEVEL_PROTOCOL', `${reason}: it is damaged or broken. ${advice}`)
}
