/**
 * JSON as text. Values are stored, pulled and pushed as the text that their author wrote, because
 * JavaScript rounds integers beyond 2^53 when it parses them.
 */

const WHITE_SPACE = ' \t\r\n'

/** The length of a string in UTF-8. @param {string} text @returns {number} in bytes */
export function utf8Length(text) {
  return new TextEncoder().encode(text).length
}

/**
 * Split a JSON array into its items, or a JSON object into its members (`"name":value`). The text
 * is JSON if each of them is.
 * @param {string} text
 * @param {number} [most] the largest number of items
 * @returns {string[]} each as it is written, without the white space around it
 * @throws {SyntaxError} the text is not one array or object
 * @throws {RangeError} it has more items
 */
export function splitItems(text, most = Infinity) {
  const items = []
  let depth = 0
  let start = 0
  let closing = ''
  let isClosed = false
  for (let position = 0; position < text.length; position++) {
    const character = text[position]
    if (depth === 0) {
      if (WHITE_SPACE.includes(character)) continue
      if (isClosed || (character !== '[' && character !== '{')) {
        throw new SyntaxError('it is not one container')
      }
      closing = character === '[' ? ']' : '}'
      start = position + 1
      depth = 1
    } else if (character === '"') {
      position = endOfString(text, position)
    } else if (character === '[' || character === '{') {
      depth++
    } else if (character === ',') {
      if (depth === 1) {
        items.push(text.slice(start, position).trim())
        if (items.length >= most) throw new RangeError('it has too many items')
        start = position + 1
      }
    } else if (character === ']' || character === '}') {
      if (depth === 1) {
        if (character !== closing) throw new SyntaxError('its brackets differ')
        items.push(text.slice(start, position).trim())
        isClosed = true
      }
      depth--
    }
  }
  if (!isClosed || depth > 0) throw new SyntaxError('it has no end')
  return items.length === 1 && items[0] === '' ? [] : items
}

/**
 * True if two texts are the same JSON, which may differ in white space and escapes. Numbers are
 * compared as they are written.
 * @param {string} text valid JSON
 * @param {string} other valid JSON
 */
export function isSameJson(text, other) {
  return text === other || compact(text) === compact(other)
}

/**
 * A JSON text without white space, with strings as `JSON.stringify` writes them. A regular
 * expression would overflow its stack on a string of some megabytes.
 */
function compact(text) {
  let compacted = ''
  let start = 0
  for (let position = 0; position < text.length; position++) {
    if (text[position] === '"') {
      const end = endOfString(text, position) + 1
      const string = JSON.stringify(JSON.parse(text.slice(position, end)))
      compacted += text.slice(start, position) + string
      start = end
      position = end - 1
    } else if (WHITE_SPACE.includes(text[position])) {
      compacted += text.slice(start, position)
      start = position + 1
    }
  }
  return compacted + text.slice(start)
}

/**
 * The containers inside each other in JSON text: 0 for a scalar. The text may be nested so deep
 * that a recursive function would overflow the stack.
 * @param {string} text valid JSON
 * @returns {number}
 */
export function depthOf(text) {
  let depth = 0
  let deepest = 0
  for (let position = 0; position < text.length; position++) {
    const character = text[position]
    if (character === '"') position = endOfString(text, position)
    else if (character === '[' || character === '{') deepest = Math.max(deepest, ++depth)
    else if (character === ']' || character === '}') depth--
  }
  return deepest
}

/**
 * The commas and opening brackets in a text. Each may be a value of JSON, which takes far more
 * memory than its text.
 * @param {string} text
 * @returns {number}
 */
export function countItems(text) {
  let items = 0
  for (let position = 0; position < text.length; position++) {
    const code = text.charCodeAt(position)
    if (code === 0x2c || code === 0x5b || code === 0x7b) items++
  }
  return items
}

/** The position of the closing quotation mark of the string that opens at `start`. */
function endOfString(text, start) {
  let position = start + 1
  while (position < text.length && text[position] !== '"') {
    position += text[position] === '\\' ? 2 : 1
  }
  return position
}

/**
 * Find a name that an object in a JSON text has twice: `JSON.parse` silently keeps the last member.
 * @param {string} text valid JSON
 * @returns {string | undefined} the first such name; `undefined` if there is none
 */
export function findRepeatedName(text) {
  // The names of each open object; `null` for an open array.
  /** @type {(Set<string> | null)[]} */
  const open = []
  for (let position = 0; position < text.length; position++) {
    const character = text[position]
    if (character === '{') open.push(new Set())
    else if (character === '[') open.push(null)
    else if (character === '}' || character === ']') open.pop()
    else if (character === '"') {
      const end = endOfString(text, position)
      const names = open.at(-1)
      if (names && isBeforeColon(text, end + 1)) {
        const name = JSON.parse(text.slice(position, end + 1))
        if (names.has(name)) return name
        names.add(name)
      }
      position = end
    }
  }
  return undefined
}

/** True if a colon follows, after white space: the string before it is a name. */
function isBeforeColon(text, position) {
  while (position < text.length && WHITE_SPACE.includes(text[position])) position++
  return text[position] === ':'
}

/**
 * The members of a JSON object, each as it is written. The text is JSON if each value is.
 * @param {string[]} items of an object that names no member twice, by `splitItems`
 * @returns {Map<string, string>} the text of each value, by the member's name
 * @throws {SyntaxError} an item has no name
 */
export function splitMembers(items) {
  return new Map(
    items.map((member) => {
      const end = endOfString(member, 0) + 1
      if (member[0] !== '"' || !isBeforeColon(member, end)) {
        throw new SyntaxError('a member has no name')
      }
      return [JSON.parse(member.slice(0, end)), member.slice(member.indexOf(':', end) + 1)]
    }),
  )
}

/**
 * Split an array that is a member of a JSON object.
 * @param {Map<string, string>} members of the object
 * @param {string} name of the member
 * @returns {string[]} the items of the array; none if there is no such member
 */
export function splitMember(members, name) {
  return splitItems(members.get(name) ?? '[]')
}
