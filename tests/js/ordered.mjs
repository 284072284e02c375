// Runs the golden vectors of ordered keys: node ordered.mjs <module of the client> <ordered.json>
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [, , module, vectors] = process.argv
const { ordered } = await import(pathToFileURL(module).href)
const { isBefore } = await import(new URL('./src/keys.js', pathToFileURL(module)).href)
const { keys, invalid } = JSON.parse(readFileSync(vectors, 'utf8'))

function floatOf(bits) {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt(`0x${bits}`))
  return new ordered.Float(view.getFloat64(0))
}

function valueOf(item) {
  if ('null' in item) return null
  if ('bool' in item) return item.bool
  if ('str' in item) return item.str
  if ('int' in item) return BigInt(item.int)
  if ('float' in item) return floatOf(item.float)
  if ('date' in item) return new ordered.PlainDate(item.date)
  if ('naive' in item) return new ordered.PlainDateTime(item.naive)
  if ('datetime' in item) return new ordered.Instant(item.datetime.replace(/Z$/, ''))
  if ('uuid' in item) return new ordered.Uuid(item.uuid)
  return Uint8Array.from(Buffer.from(item.bytes, 'hex'))
}

/** A value as text, to compare those of one type. */
function shown(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (value instanceof ordered.Float) return Object.is(value.value, -0) ? '-0' : `${value.value}`
  // The text of a time may have zeros at its end.
  return Object.is(value, -0) ? '-0' : `${value}`.replace(/(\.\d*?)0+$/, '$1')
}

let before = ''
for (const { values, key } of keys) {
  const elements = values.map(valueOf)
  assert.equal(ordered.encode(elements), key)
  const decoded = ordered.decode(key)
  assert.deepEqual(decoded.map(shown), elements.map(shown))
  assert.equal(ordered.encode(decoded), key)
  assert.ok(isBefore(before, key), `${before} < ${key}`)
  before = key
}
for (const text of invalid) {
  assert.throws(() => ordered.decode(text), { code: 'LEVEL_DECODE' }, text)
}

assert.equal(ordered.encode(['JP', 42]), 'sJP!ib42!')
assert.equal(ordered.encode([-1.5, 2 ** 53]), 'f4007ffffffffffff!fc340000000000000!')
assert.equal(ordered.encode([new Date('2026-11-30T20:52:55.500Z')]), 't2026-11-30T20:52:55.5!')
assert.equal(ordered.decode('t2026-11-30T20:52:55.5!')[0].toDate().getTime(), Date.UTC(2026, 10, 30, 20, 52, 55, 500))
assert.deepEqual(ordered.decode('ib42!ir100000000000000000!'), [42, 100000000000000000n])
assert.ok(ordered.encode(['JP', 1]).startsWith(ordered.prefix(['JP'])))
assert.equal(ordered.prefix([]), '')
const refused = [[], [undefined], [NaN], [new ordered.Float(NaN)], ['\ud800'], ['x'.repeat(1024)], [[1]], [{}]]
refused.push([new Date(NaN)], [new Date(8.64e15)], [new ordered.PlainDate('2026-02-30')], [new ordered.Uuid('1')], 'JP')
for (const values of refused) assert.throws(() => ordered.encode(values), { code: 'LEVEL_INVALID_KEY' })
console.log(`${keys.length} keys, ${invalid.length} texts that are none`)
