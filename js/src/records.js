/** Changes, their records on disk and on the wire, and entries of a batch. */
import { splitItems } from './json.js'

/**
 * @typedef {object} Change
 * @property {string} key
 * @property {string} [value] JSON text; absent for a delete
 */

/** Options of the store underneath: keys and values are strings, stored as UTF-8. */
export const UTF8 = { keyEncoding: 'utf8', valueEncoding: 'utf8' }
/** Options of a write that outlives a power cut, where the store underneath offers that. */
export const DURABLE = { ...UTF8, sync: true }

/** A new random id, as for stores, clients and nonces. @returns {string} 32 hexadecimal digits */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

/**
 * The record of a change: `[key,value]`, or `[key]` for a delete.
 * @param {Change} change
 * @returns {string}
 */
export function joinRecord({ key, value }) {
  const name = JSON.stringify(key)
  return value === undefined ? `[${name}]` : `[${name},${value}]`
}

/** The change that a record stands for. @param {string} record @returns {Change} */
export function splitRecord(record) {
  const [key, value] = splitItems(record)
  return { key: JSON.parse(key), value }
}

/**
 * An operation of `store.batch()`.
 * @param {string} key
 * @param {string} [text] the text to put; absent to delete the key
 */
export function batchEntry(key, text) {
  return text === undefined ? { type: 'del', key } : { type: 'put', key, value: text }
}
