// Runs clients of the npm package @treehub/level, with the pull and push of its README over HTTP:
// node npm_client.mjs <package.json>
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

import { serve } from './lines.mjs'

const require = createRequire(pathToFileURL(process.argv[2]))
const Level = require('@treehub/level')
const MemDOWN = require('memdown')

async function send({ url, token }, method, path, body) {
  const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) }
  const response = await fetch(`${url}/${path}`, { method, headers, body: body && JSON.stringify(body) })
  return { status: response.status, ...(await response.json()) }
}

await serve({
  async open(client) {
    client.level = new Level({ name: '', backend: MemDOWN, mode: Level.CLIENT })
    await client.level.open()
  },
  batch: ({ level }, { operations }) => level.batch(operations),
  cid: async ({ level }) => level.CID,
  pending: async ({ level }) => (await level.dirty(-1)).length,
  items: async ({ level }) => (await level.query()).map(({ key, value }) => [key, value]),
  /** Pull one page. True if there are more. */
  async pull({ level }, server) {
    const { cid, changes, has_more: hasMore } = await send(server, 'GET', `changes?since=${level.CID}&limit=100`)
    await level.apply(cid, changes)
    return hasMore
  },
  /** Push one page, and return the status of the response. No write may happen during a push. */
  async push({ level }, server) {
    const changes = await level.dirty(100)
    const { status, cid } = await send(server, 'POST', 'change', { cid: level.CID, changes })
    if (status === 200) await level.clean(cid, changes.map(([key]) => key))
    return status
  },
})
