// Drives this package for the conformance of the exchange (docs/testing.md):
// python -m treehub_level.testing.exchange client --
//   node conformance.mjs <package.json> <module of the client>
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [, , manifest, module] = process.argv
const { ClassicLevel } = createRequire(pathToFileURL(manifest))('classic-level')
const load = (name) => import(new URL(name, pathToFileURL(module)).href)
const { SyncedLevel } = await load('./treehub-level.js')
const { readReply } = await load('./src/messages.js')
const { joinRecord } = await load('./src/records.js')

const toChange = ([key, ...value]) => ({ key, value: value.length ? JSON.stringify(value[0]) : undefined })
const toOperation = ([key, ...value]) => (value.length ? { type: 'put', key, value: value[0] } : { type: 'del', key })

/** The fields of a reply as JSON text: values stay as they were written. */
function fieldsOf({ rows, values, fill, refill = false, protocol, count, value_count, entries, page, ...reply }) {
  if (reply.kind !== 'page') {
    const { refused, commits, ...fields } = reply
    if (reply.kind === 'forked') delete fields.rejected
    return JSON.stringify(fields)
  }
  const part = fill && { prefix: fill.prefix, after: fill.after, to: fill.to, end: fill.end }
  const changes = rows.map((row) => `[${row.cid},${joinRecord(row)}]`)
  const fields = JSON.stringify({ ...reply, fill: part ?? null, refill })
  const [present, filled] = [values, fill?.entries ?? []].map((records) => records.map(joinRecord))
  return `${fields.slice(0, -1)},"page":[${changes}],"values":[${present}],"entries":[${filled}]}`
}

const stores = new Map()
const find = ({ store }) => stores.get(store).level

/** The commands. Each returns the JSON text of its result. */
const commands = {
  hello: () => JSON.stringify({ name: 'treehub-level for JavaScript', abilities: ['persistent', 'read'] }),
  async open({ store, path }) {
    const below = new ClassicLevel(path)
    stores.set(store, { below, level: new SyncedLevel(below) })
    await find({ store }).cid()
  },
  async close({ store }) {
    await stores.get(store).below.close()
  },
  put: (command) => find(command).put(command.key, command.value),
  delete: (command) => find(command).del(command.key),
  batch: (command) => find(command).batch(command.changes.map(toOperation)),
  async sync(command) {
    await find(command).sync(command.url)
  },
  async entries(command) {
    const entries = []
    for await (const entry of find(command).iterator()) entries.push(entry)
    return JSON.stringify(entries)
  },
  cid: async (command) => `${await find(command).cid()}`,
  pending: async (command) => `${await find(command).pending()}`,
  conflicts: async (command) => JSON.stringify(await find(command).conflicts()),
  read({ text, request }) {
    const changes = request.changes.map(toChange)
    return fieldsOf(readReply(text, request, changes.length ? { changes } : undefined))
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...rest } = JSON.parse(line)
  let answer
  try {
    answer = `"result":${(await commands[command](rest)) ?? null}`
  } catch ({ code, name, message }) {
    answer = `"error":${JSON.stringify({ code: code ?? name, message })}`
  }
  process.stdout.write(`{"id":${id},${answer}}\n`)
}
