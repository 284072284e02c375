/** Values of users, and their limits in a store that synchronises. */
import { LevelError } from './errors.js'
import { depthOf, utf8Length } from './json.js'

/** Bytes of a value. */
export const MAX_VALUE_BYTES = 4 << 20
/** Containers inside each other in a value. */
const MAX_DEPTH = 64

/**
 * True if JSON text that `JSON.stringify` wrote holds a lone surrogate: it writes only those as
 * `\ud…`.
 */
function hasLoneSurrogate(text) {
  return /(?<!\\)(\\\\)*\\ud/.test(text)
}

/** True if JSON text is not too large and not nested too deep for a value. @param {string} text */
export function isWithinLimits(text) {
  return utf8Length(text) <= MAX_VALUE_BYTES && depthOf(text) <= MAX_DEPTH
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
    !isWithinLimits(text) || // first: a long text would overflow the stack of a regular expression
    hasLoneSurrogate(text)
  ) {
    throw new LevelError(
      'LEVEL_INVALID_VALUE',
      'the value cannot be stored: a value is JSON without lone surrogates, ' +
        'at most 4 MiB of UTF-8, with at most 64 containers inside each other',
    )
  }
  return text
}
