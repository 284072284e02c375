// A page that sends all that a browser permits to a server of another origin, and posts the bodies
// that it was given to its own origin. `url` is that of the server, `target` that of a database.
const { url, target } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
const batch = '{"ops":[{"type":"put","key":"planted","value":1}]}'
const script = `<script>fetch("${target}/batch", {method: "POST", body: '${batch}'})</script>`
const json = { 'content-type': 'application/json' }
const readings = {}

const read = async (name, request) => {
  try {
    const response = await request()
    readings[name] = `${response.type} ${await response.text()}`
  } catch (error) {
    readings[name] = `${error.name}`
  }
}

const load = (element, attributes) =>
  new Promise((resolve) => {
    const node = Object.assign(document.createElement(element), attributes)
    node.onload = node.onerror = resolve
    setTimeout(resolve, 1500)
    document.body.append(node)
  })

const submit = async (method, action, enctype, frame) => {
  const form = document.createElement('form')
  Object.assign(form, { method, action, enctype, target: frame.name })
  // With enctype text/plain the body is NAME=VALUE, and so may be JSON.
  const input = document.createElement('input')
  Object.assign(input, { name: batch.replace('1}]}', '"'), value: '"}]}' })
  form.append(input)
  document.body.append(form)
  form.submit()
  await new Promise((resolve) => setTimeout(resolve, 300))
}

const frame = document.createElement('iframe')
frame.name = 'frame'
document.body.append(frame)

await Promise.all([
  load('img', { src: `${target}/entries/a` }),
  load('img', { src: `${url}/v1/phone` }),
  load('script', { src: `${target}/entries?limit=1` }),
  load('link', { rel: 'stylesheet', href: `${target}/changes` }),
  load('iframe', { src: `${target}/entries/a` }),
  load('iframe', { sandbox: 'allow-scripts', srcdoc: `<img src="${url}/v1/phone">${script}` }),
  load('object', { data: `${target}` }),
  load('video', { src: `${target}/watch` }),
])
for (const path of ['/batch', '/change', '/exchange', '/entries/planted']) {
  await submit('post', `${target}${path}`, 'text/plain', frame)
  const address = `${target}${path}`
  const post = { method: 'POST', body: batch }
  await read(`simple POST ${path}`, () => fetch(address, { ...post, mode: 'no-cors' }))
  await read(`POST ${path}`, () => fetch(address, { ...post, headers: json }))
  navigator.sendBeacon(address, new Blob([batch], { type: 'text/plain' }))
}
await submit('get', `${url}/v1/phone`, '', frame)
for (const method of ['PUT', 'DELETE', 'GET', 'HEAD']) {
  const body = method === 'PUT' ? '1' : undefined
  await read(method, () => fetch(`${target}/entries/a`, { method, body }))
}
await read('GET no-cors', () => fetch(`${target}/entries/a`, { mode: 'no-cors' }))
await read('GET credentials', () => fetch(`${target}/entries/a`, { credentials: 'include' }))
await read('health', () => fetch(`${url}/healthz`))
await new Promise((resolve) => {
  const socket = new WebSocket(`${target.replace('http', 'ws')}/watch`)
  socket.onopen = () => (readings.socket = 'open')
  socket.onclose = resolve
})
await new Promise((resolve) => {
  const events = new EventSource(`${target}/watch?since=0`)
  events.onmessage = (event) => (readings.events = event.data)
  events.onerror = resolve
  setTimeout(resolve, 1500)
})
await fetch('/results', { method: 'POST', headers: json, body: JSON.stringify(readings) })
