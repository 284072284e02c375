/** The client's own records, which one batch reads and replaces as a whole. */
import { followingRecord, parseFollowing } from './following.js'
import { splitItems, splitMember, splitMembers } from './json.js'
import {
  BASES_KEY,
  CID_KEY,
  CLIENT_ID_KEY,
  FOLLOW_KEY,
  OWN_RANGE_KEY,
  PUSH_KEY,
  SERVER_KEY,
} from './keys.js'
import { UTF8, batchEntry, joinRecord, splitRecord } from './records.js'

/** @import { Bases } from './bases.js' */
/** @import { Following } from './following.js' */
/** @import { Change } from './records.js' */

/**
 * The frozen push: changes that are sent unaltered until the server has decided on them.
 * @typedef {object} Push
 * @property {number} seq
 * @property {string} nonce
 * @property {Change[]} changes
 * @property {[number, number][]} [groups] the runs of changes that belong together, each as the
 *   index of its first change and their number; a client in Python has frozen them
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
 * @property {Following} following how far it has the keys
 * @property {Push} [push] undecided
 * @property {[number, number, string | null]} [ownRange] the CIDs around its last push on the
 *   server, and their epoch, until it has pulled them
 * @property {Bases} [bases]
 */

/**
 * The state of a client that has never synchronised.
 * @param {string} id
 * @returns {State}
 */
export function newState(id) {
  const following = parseFollowing(undefined, 0)
  return { cid: 0, id, seq: 0, server: null, maxHead: 0, epochs: [], following }
}

/**
 * Read the state.
 * @param {any} store
 * @returns {Promise<{ state: State, version: string }>} `version` differs whenever a record does
 */
export async function readState(store) {
  const names = [CID_KEY, CLIENT_ID_KEY, SERVER_KEY, PUSH_KEY, OWN_RANGE_KEY, BASES_KEY]
  const texts = await store.getMany([...names, FOLLOW_KEY], UTF8)
  const following = texts.at(-1)
  const records = texts.map((text) => text && JSON.parse(text))
  const [cid = 0, [id, seq], server, , ownRange, bases] = records
  const state = {
    cid,
    id,
    seq,
    server: server?.id ?? null,
    maxHead: server?.hi ?? 0,
    epochs: server?.epochs ?? [],
    following: parseFollowing(following, cid),
    push: texts[3] && readPush(texts[3]),
    ownRange,
    bases,
  }
  return { state, version: texts.join() }
}

/** The entries that replace all records. @param {State} state */
export function stateEntries(state) {
  const { cid, id, seq, server, maxHead, epochs, following, push, ownRange } = state
  const history = server === null ? undefined : { id: server, hi: maxHead, epochs }
  return [
    batchEntry(CID_KEY, JSON.stringify(cid)),
    batchEntry(CLIENT_ID_KEY, JSON.stringify([id, seq])),
    batchEntry(SERVER_KEY, JSON.stringify(history)),
    batchEntry(OWN_RANGE_KEY, JSON.stringify(ownRange)),
    batchEntry(FOLLOW_KEY, followingRecord(following, cid)),
    batchEntry(BASES_KEY, JSON.stringify(basesOf(state))),
    batchEntry(PUSH_KEY, push && writePush(push)),
  ]
}

/**
 * The record of base values. The first one is made when local writes have to record some.
 * @param {State} state
 * @returns {Bases | undefined}
 */
function basesOf({ bases, cid, following }) {
  const { range, isResetting } = following
  const isNeeded = range === 'checked' || (range === 'unchecked' && (cid > 0 || isResetting))
  return bases ?? (isNeeded ? { generation: 1, kept: false } : undefined)
}

/** The push in a record. @param {string} record @returns {Push} */
function readPush(record) {
  const { seq, nonce, groups } = JSON.parse(record)
  const changes = splitMember(splitMembers(splitItems(record)), 'changes').map(splitRecord)
  return { seq, nonce, changes, groups }
}

/** The record of a push. @param {Push} push @returns {string} */
function writePush({ seq, nonce, changes, groups }) {
  const runs = groups === undefined ? '' : `,"groups":${JSON.stringify(groups)}`
  return `{"seq":${seq},"nonce":"${nonce}","changes":[${changes.map(joinRecord)}]${runs}}`
}
