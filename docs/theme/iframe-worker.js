// Browsers start no workers for pages of the file system. There the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inner = this.inner = frame.contentWindow
      inner.postMessage = data => this.tell(this, data)
      inner.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => this.run(next)), Promise.resolve())
      this.run(url).then(() => {
        this.ready = true
        this.waiting.forEach(data => this.tell(inner, data))
      })
    }

    run(url) {
      return new Promise((resolve, reject) => {
        const script = this.inner.document.createElement("script")
        script.src = url
        script.onload = resolve
        script.onerror = reject
        this.inner.document.body.append(script)
      })
    }

    postMessage(data) {
      this.ready ? this.tell(this.inner, data) : this.waiting.push(data)
    }

    // later, as a worker would answer
    tell(target, data) {
      setTimeout(() => {
        target.dispatchEvent(new MessageEvent("message", { data }))
      })
    }

    terminate() {
      this.inner.frameElement.remove()
    }
  }
}
