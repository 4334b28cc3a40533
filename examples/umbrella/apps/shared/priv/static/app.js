// No bundler: phoenix.js and phoenix_live_view.js come from the packages' priv/static and define the
// globals Phoenix and LiveView.
const meta = name => document.querySelector(`meta[name="${name}"]`)?.getAttribute("content") || ""

// All sockets connect to the page's host and thus to the same service and tenant. If WebSockets are
// blocked, LiveView falls back to long polling.
const liveSocket = new LiveView.LiveSocket("/live", Phoenix.Socket, {
  longPollFallbackMs: 2500,
  params: {_csrf_token: meta("csrf-token")}
})
liveSocket.connect()
window.liveSocket = liveSocket

const add = (list, text) => {
  const item = document.createElement("li")
  item.textContent = text
  list.append(item)
  list.scrollTop = list.scrollHeight
}

// The chat page: a channel.
const chat = document.getElementById("chat")
if (chat) {
  const log = chat.querySelector(".log")
  const input = chat.querySelector("input")
  const state = document.getElementById("chat-state")
  const socket = new Phoenix.Socket("/socket")
  const channel = socket.channel(`room:${meta("tenant") || "lobby"}`)
  socket.connect()
  channel.on("said", ({text, from}) => add(log, `${from}: ${text}`))
  channel.join()
    .receive("ok", () => { state.textContent = "joined" })
    .receive("error", ({reason}) => { state.textContent = reason })
  chat.querySelector("form").addEventListener("submit", event => {
    event.preventDefault()
    if (input.value) channel.push("say", {text: input.value})
    input.value = ""
  })
}

// The feed page: server-sent events.
const feed = document.getElementById("feed")
if (feed) {
  const source = new EventSource("/events")
  source.onmessage = ({data}) => add(feed, data)
}
