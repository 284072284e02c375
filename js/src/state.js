/** The client's own records, which one batch reads and replaces as a whole. */
import { splitMember } from './json.js'
import {
  CID_KEY,
  CLIENT_ID_KEY,
  OWN_RANGE_KEY,
  PUSH_KEY,
  RESET_KEY,
  SERVER_KEY,
} from './keys.js'
import { UTF8, batchEntry, joinRecord, splitRecord } from './records.js'

/** @import { Change } from './records.js' */

/**
 * The frozen push: changes that are sent unaltered until the server has decided on them.
 * @typedef {object} Push
 * @property {number} seq
 * @property {string} nonce
 * @property {Change[]} changes
 */

/**
 * A reset under way. In phase A the client pulls everything again; in phase B it deletes clean keys
 * that the server does not have. Dirty keys win over changes up to `common`, which both histories
 * share.
 * @typedef {object} Reset
 * @property {number} common
 * @property {'A' | 'B'} phase
 * @property {string} cursor the last key that phase B has compared
 */

/**
 * The state of a client.
 * @typedef {object} State
 * @property {number} cid the server's CID up to which everything is here
 * @property {string} id of this client
 * @property {number} seq the number of its last push
 * @property {string | null} server the id of the server that it follows
 * @property {number} maxHead the highest head of the server that it has seen
 * @property {[string, number][]} epochs id and start CID of each, oldest first
 * @property {Push} [push] undecided
 * @property {[number, number, string | null]} [ownRange] the CIDs around its last push on the
 *   server, and their epoch, until it has pulled them
 * @property {Reset} [reset]
 */

/**
 * Read the state.
 * @param {any} store
 * @returns {Promise<{ state: State, version: string }>} `version` differs whenever a record does
 */
export async function readState(store) {
  const keys = [CID_KEY, CLIENT_ID_KEY, SERVER_KEY, PUSH_KEY, OWN_RANGE_KEY, RESET_KEY]
  const texts = await store.getMany(keys, UTF8)
  const records = texts.map((text) => text && JSON.parse(text))
  const [cid = 0, [id, seq], server, push, ownRange, reset] = records
  const changes = push && splitMember(texts[3], 'changes').map(splitRecord)
  const state = {
    cid,
    id,
    seq,
    server: server?.id ?? null,
    maxHead: server?.hi ?? 0,
    epochs: server?.epochs ?? [],
    push: push && { ...push, changes },
    ownRange,
    reset,
  }
  return { state, version: texts.join() }
}

/** The entries that replace all records. @param {State} state */
export function stateEntries({ cid, id, seq, server, maxHead, epochs, push, ownRange, reset }) {
  const history = server === null ? undefined : { id: server, hi: maxHead, epochs }
  return [
    batchEntry(CID_KEY, JSON.stringify(cid)),
    batchEntry(CLIENT_ID_KEY, JSON.stringify([id, seq])),
    batchEntry(SERVER_KEY, JSON.stringify(history)),
    batchEntry(OWN_RANGE_KEY, JSON.stringify(ownRange)),
    batchEntry(RESET_KEY, JSON.stringify(reset)),
    batchEntry(PUSH_KEY, push && writePush(push)),
  ]
}

/** The record of a push. @param {Push} push @returns {string} */
function writePush({ seq, nonce, changes }) {
  return `{"seq":${seq},"nonce":"${nonce}","changes":[${changes.map(joinRecord)}]}`
}
