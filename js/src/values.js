/** Values of users, and their limits in a store that synchronises. */
import { LevelError } from './errors.js'
import { utf8Length } from './json.js'

const MAX_VALUE_BYTES = 4 << 20
const MAX_DEPTH = 64

/** The containers inside each other in a value: 0 for a scalar. @returns {number} */
function depthOf(value) {
  if (typeof value !== 'object' || value === null) return 0
  return 1 + Object.values(value).reduce((deepest, part) => Math.max(deepest, depthOf(part)), 0)
}

/**
 * True if JSON text that `JSON.stringify` wrote holds a lone surrogate: it writes only those as
 * `\ud…`.
 */
function hasLoneSurrogate(text) {
  return /(?<!\\)(\\\\)*\\ud/.test(text)
}

/**
 * Encode a value as JSON.
 * @param {any} value anything that `JSON.stringify` takes
 * @returns {string}
 * @throws {LevelError} `LEVEL_INVALID_VALUE`: no server would accept the value
 */
export function encodeValue(value) {
  const text = JSON.stringify(value)
  if (
    text === undefined ||
    hasLoneSurrogate(text) ||
    utf8Length(text) > MAX_VALUE_BYTES ||
    depthOf(JSON.parse(text)) > MAX_DEPTH
  ) {
    throw new LevelError(
      'LEVEL_INVALID_VALUE',
      'the value cannot be stored: a value is JSON without lone surrogates, ' +
        'at most 4 MiB of UTF-8, with at most 64 containers inside each other',
    )
  }
  return text
}
