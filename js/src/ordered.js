/**
 * Keys from arrays: strings whose order in a store is the order of the arrays, element by element.
 * `encode(['JP', 42])` is `sJP!ib42!`. They are the keys of `treehub_level.ordered` in Python;
 * `docs/format.md` specifies each character.
 *
 * An element is `null`, a boolean, a string, a number, a bigint, a `Date`, a `Uint8Array`, or an
 * object of the classes here. A number that is a safe integer is an integer in the key, and sorts
 * after all floats: give `Float` where numbers of both kinds come in one place.
 */
import { LevelError } from './errors.js'
import { utf8Length } from './json.js'

const MAX_KEY_BYTES = 1024
/** The character that ends each element. It sorts before all characters of the texts. */
const END = '!'
/** The most digits of an integer that one letter tells: `a` to `y`, and `Z` to `B`. */
const LONGEST = 25

/** A value that a text stands for, in the form of `docs/format.md`. */
class Text {
  /** @param {string} text */
  constructor(text) {
    this.text = text
  }

  toString() {
    return this.text
  }
}

/** A date, such as `2026-11-30`. */
export class PlainDate extends Text {}

/** A date and time without a time zone, such as `2026-11-30T20:52:55.5`. */
export class PlainDateTime extends Text {}

/** An instant: a date and time in UTC, with up to six digits of a fraction of a second. */
export class Instant extends Text {
  /** The instant, with its first three digits of a fraction. @returns {Date} */
  toDate() {
    return new Date(`${this.text}Z`)
  }
}

/** A UUID, such as `12345678-1234-5678-1234-567812345678`. */
export class Uuid extends Text {}

/** A 64-bit float. Other numbers than safe integers need no such object. */
export class Float {
  /** @param {number} value */
  constructor(value) {
    this.value = value
  }

  valueOf() {
    return this.value
  }
}

/**
 * @typedef {null | boolean | string | number | bigint | Date | Uint8Array | PlainDate
 *   | PlainDateTime | Instant | Uuid | Float} Element
 */

/**
 * The key of an array.
 * @param {Element[]} values at least one element
 * @returns {string}
 * @throws {LevelError} the array is empty, the key takes more than 1024 bytes of UTF-8, or an
 *   element is of another type, NaN, not Unicode text, or no valid date, time or UUID
 */
export function encode(values) {
  const key = prefix(values)
  if (key === '') throw new LevelError('LEVEL_INVALID_KEY', 'an empty array has no key: give it an element')
  return key
}

/**
 * The beginning of the keys of all arrays that begin with these elements, for a range
 * `{ gte: prefix(values), lt: prefix(values) + '~' }`.
 * @param {Element[]} values
 * @returns {string}
 * @throws {LevelError} see `encode`
 */
export function prefix(values) {
  if (!Array.isArray(values)) {
    throw new LevelError('LEVEL_INVALID_KEY', 'an ordered key is made from an array of elements')
  }
  const key = values.map(encodeElement).join('')
  checkLength(key, 'LEVEL_INVALID_KEY')
  return key
}

/**
 * The elements of a key. An integer is a number if it is a safe one, else a bigint. A float is a
 * number, or a `Float` if `encode` would take that number for an integer.
 * @param {string} key
 * @returns {Element[]}
 * @throws {LevelError} `encode` does not make this key of any array
 */
export function decode(key) {
  if (typeof key !== 'string') throw new LevelError('LEVEL_DECODE', 'an ordered key is a string')
  checkLength(key, 'LEVEL_DECODE')
  if (!key.endsWith(END)) throw notOrdered(key, `it does not end with ${END}`)
  return key
    .slice(0, -1)
    .split(END)
    .map((element) => decodeElement(key, element))
}

function checkLength(key, code) {
  if (utf8Length(key) > MAX_KEY_BYTES) {
    throw new LevelError(code, `an ordered key takes at most ${MAX_KEY_BYTES} bytes of UTF-8`)
  }
}

function notOrdered(key, reason) {
  return new LevelError('LEVEL_DECODE', `${JSON.stringify(key.slice(0, 80))} is not an ordered key: ${reason}`)
}

// ------------------------------------------------------------------------------------ the elements

/** @param {Element} value @param {number} index */
function encodeElement(value, index) {
  const letter = letterOf(value)
  const text = letter && TYPES[letter].encode(/** @type {any} */ (value))
  if (text === undefined) {
    throw new LevelError('LEVEL_INVALID_KEY', `element ${index} of the array cannot be part of an ordered key`)
  }
  return letter + text + END
}

/** The letter of a value's type; `undefined` if it has none. @param {unknown} value */
function letterOf(value) {
  switch (typeof value) {
    case 'boolean':
      return 'b'
    case 'string':
      return 's'
    case 'bigint':
      return 'i'
    case 'number':
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? 'i' : 'f'
  }
  if (value === null) return '0'
  return CLASSES.find(([, type]) => value instanceof type)?.[0]
}

/** Decode an element, strictly: the same value must encode to the same text. */
function decodeElement(key, element) {
  const letter = element.slice(0, 1)
  const text = element.slice(1)
  const type = Object.hasOwn(TYPES, letter) ? TYPES[letter] : undefined
  const value = type?.decode(text)
  if (type === undefined || value === undefined || letterOf(value) !== letter || type.encode(value) !== text) {
    throw notOrdered(key, `${JSON.stringify(element.slice(0, 60))} is no element`)
  }
  return value
}

/** @param {string} value */
function encodeString(value) {
  if (/\p{Surrogate}/u.test(value)) return undefined
  const escape = (/** @type {string} */ found) =>
    `%${found.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
  // eslint-disable-next-line no-control-regex
  return value.replace(/[\u0000-%]/g, escape)
}

/** @param {string} text */
function decodeString(text) {
  return text.replace(/%([0-9A-F]{2})/g, (_, digits) => String.fromCharCode(parseInt(digits, 16)))
}

/** @param {number | bigint} value @returns {string} */
function encodeInteger(value) {
  const isNegative = value < 0
  const digits = `${isNegative ? -value : value}`
  const count = digits.length
  if (isNegative) {
    const head = count <= LONGEST ? String.fromCharCode(0x5b - count) : `A${encodeInteger(-count)}`
    return head + complement(digits)
  }
  return (count <= LONGEST ? String.fromCharCode(0x60 + count) : `z${encodeInteger(count)}`) + digits
}

/** The complements to nine, which reverse the order of digits. @param {string} digits */
function complement(digits) {
  return digits.replace(/\d/g, (digit) => `${9 - Number(digit)}`)
}

/** @param {string} text */
function decodeInteger(text) {
  const [, isLong, head, digits] = /^([zA]?)([B-Za-y])([0-9]+)$/.exec(text) ?? []
  if (digits === undefined) return undefined
  // A long integer has the text of its number of digits first, which has up to 25 digits itself.
  const own = isLong ? digits.slice(lengthOf(head)) : digits
  if (own === '') return undefined
  const value = text < 'a' ? -BigInt(complement(own)) : BigInt(own)
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/** The number of digits that a letter tells. @param {string} letter */
function lengthOf(letter) {
  const code = letter.charCodeAt(0)
  return code > 0x60 ? code - 0x60 : 0x5b - code
}

/** @param {number | Float} value */
function encodeFloat(value) {
  const number = Number(value)
  if (Number.isNaN(number)) return undefined
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, number)
  const bits = view.getBigUint64(0)
  const mask = bits >> 63n ? 0xffffffffffffffffn : 1n << 63n
  return (bits ^ mask).toString(16).padStart(16, '0')
}

/** @param {string} text */
function decodeFloat(text) {
  if (!/^[0-9a-f]{16}$/.test(text)) return undefined
  const bits = BigInt(`0x${text}`)
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, bits ^ (bits >> 63n ? 1n << 63n : 0xffffffffffffffffn))
  const value = view.getFloat64(0)
  return letterOf(value) === 'f' ? value : new Float(value)
}

/** The text of a date, if there is such a day. @param {{ text: string }} date */
function dateText({ text }) {
  return isTime(`${text}T00:00:00`) ? text : undefined
}

/** The text of a time without trailing zeros. @param {{ text: string }} time */
function timeText({ text }) {
  const [, seconds, fraction] = /^([-\dT:]+?)(?:\.(\d{1,6}))?$/.exec(text) ?? []
  if (seconds === undefined || !isTime(seconds)) return undefined
  const digits = (fraction ?? '').replace(/0+$/, '')
  return digits === '' ? seconds : `${seconds}.${digits}`
}

/** @param {Date | Instant} value */
function instantText(value) {
  if (value instanceof Instant) return timeText(value)
  return Number.isNaN(value.getTime()) ? undefined : timeText({ text: value.toISOString().slice(0, -1) })
}

/** True for a time with seconds in the years 0001 to 9999. @param {string} text */
function isTime(text) {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/.test(text) || text < '0001') return false
  const time = new Date(`${text}Z`)
  return !Number.isNaN(time.getTime()) && time.toISOString().startsWith(text)
}

/** @param {Uuid} uuid */
function uuidText({ text }) {
  const lower = text.toLowerCase()
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(lower) ? lower : undefined
}

/** @param {Uint8Array} bytes */
function encodeBytes(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** @param {string} text */
function decodeBytes(text) {
  if (!/^([0-9a-f]{2})*$/.test(text)) return undefined
  return Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16))
}

/** The classes of elements that are objects, and their letters. @type {[string, Function][]} */
const CLASSES = [
  ['d', PlainDate],
  ['f', Float],
  ['l', PlainDateTime],
  ['t', Instant],
  ['t', Date],
  ['u', Uuid],
  ['x', Uint8Array],
]

/**
 * The texts of the types, by letter. A function that cannot convert returns `undefined`.
 * @type {Record<string, {
 *   encode: (value: any) => string | undefined, decode: (text: string) => Element | undefined
 * }>}
 */
const TYPES = {
  0: { encode: () => '', decode: () => null },
  b: { encode: (value) => (value ? 'T' : 'F'), decode: (text) => text === 'T' },
  d: { encode: dateText, decode: (text) => new PlainDate(text) },
  f: { encode: encodeFloat, decode: decodeFloat },
  i: { encode: encodeInteger, decode: decodeInteger },
  l: { encode: timeText, decode: (text) => new PlainDateTime(text) },
  s: { encode: encodeString, decode: decodeString },
  t: { encode: instantText, decode: (text) => new Instant(text) },
  u: { encode: uuidText, decode: (text) => new Uuid(text) },
  x: { encode: encodeBytes, decode: decodeBytes },
}
