/**
 * Losses: dirty changes that have lost, and wait for the server's value of their key. The change
 * stays dirty until a reply has that value. One batch then journals the change, and takes the
 * value.
 */
import { splitItems, splitMembers } from './json.js'
import { LOST_RANGE, dirtyKey, lostKey, parseLostKey } from './keys.js'
import { UTF8, batchEntry } from './records.js'

/**
 * The loss of a dirty change.
 * @typedef {object} Loss
 * @property {'conflict' | 'refused'} kind `refused` if the server's rules, or the rights of the
 *   token, refuse the change
 * @property {string} [reason] of a refusal
 * @property {string} [local] the record of the refused change: a later change of the key was not
 *   judged
 * @property {boolean} [isOvertaken] true if others have changed the key since the refusal: a later
 *   change of the key, which was made without knowledge of theirs, has lost to them
 */

/** The record of a loss. @param {Loss} loss @returns {string} */
function lossRecord({ kind, reason, local, isOvertaken }) {
  const refusal = local === undefined ? '' : `,"reason":${JSON.stringify(reason)},"local":${local}`
  const overtaken = isOvertaken ? ',"overtaken":true' : ''
  return `{"kind":"${kind}"${refusal}${overtaken}}`
}

/** The entry that stores the loss of a key. @param {string} key @param {Loss} loss */
export function lossEntry(key, loss) {
  return batchEntry(lostKey(key), lossRecord(loss))
}

/**
 * Read all losses.
 * @param {any} store
 * @returns {Promise<{ losses: Map<string, Loss>, outdated: string[] }>} the losses by key, and the
 *   keys whose loss no longer counts: their refused change was rewritten since, and no other client
 *   has changed them meanwhile
 */
export async function readLosses(store) {
  const rows = await store.iterator({ ...LOST_RANGE, ...UTF8 }).all()
  const keys = rows.map(([storedKey]) => parseLostKey(storedKey))
  const dirty = keys.length === 0 ? [] : await store.getMany(keys.map(dirtyKey), UTF8)
  const losses = new Map()
  const outdated = []
  rows.forEach(([, record], index) => {
    const { kind, reason, overtaken: isOvertaken } = JSON.parse(record)
    const local = splitMembers(splitItems(record)).get('local')
    const isCurrent = dirty[index] !== undefined && (local === undefined || local === dirty[index])
    if (isCurrent) losses.set(keys[index], { kind, reason, local, isOvertaken })
    else if (dirty[index] !== undefined && isOvertaken) losses.set(keys[index], { kind: 'conflict' })
    else outdated.push(keys[index])
  })
  return { losses, outdated }
}
