// Explorers without a kernel. The built page carries the state of its widgets; this file gives each anywidget a model
// to read and write, and calls its own front end, the same that JupyterLab runs. No request leaves the page.
// When all are drawn, <html data-anyhost="ready">; "failed" if one is not, and then the page says which and why.
(async () => {
  const WIDGET = "application/vnd.jupyter.widget";
  const hosts = new Map(); // model id -> the elements that show it
  const cleanups = []; // what front ends want called when the page goes

  const same = (a, b) => {
    if (a === b) return true;
    const plain = (x) => Array.isArray(x) || Object.getPrototypeOf(x ?? 0) === Object.prototype;
    return plain(a) && plain(b) && JSON.stringify(a) === JSON.stringify(b);
  };

  /** The part of Backbone's model that anywidget promises. */
  class Model {
    #data;
    #listeners = [];
    #failed;
    constructor(data, failed) {
      this.#data = { ...data };
      this.#failed = failed;
    }
    get(key) {
      return this.#data[key];
    }
    set(key, value) {
      const given = Object.entries(typeof key === "object" ? key : { [key]: value });
      const changed = given.filter(([k, v]) => !same(v, this.#data[k]));
      for (const [k, v] of changed) this.#data[k] = v;
      for (const [k, v] of changed) this.#trigger(`change:${k}`, v);
      if (changed.length) this.#trigger("change");
    }
    on(names, call, context) {
      for (const name of names.split(" ")) this.#listeners.push({ name, call, context });
    }
    off(names, call) {
      const gone = (l) => (!names || names.split(" ").includes(l.name)) && (!call || l.call === call);
      this.#listeners = this.#listeners.filter((l) => !gone(l));
    }
    #trigger(name, value) {
      const concerned = this.#listeners.filter((l) => l.name === name); // a copy: listeners may leave while called
      for (const l of concerned) {
        try {
          l.call.call(l.context ?? this, this, value);
        } catch (error) {
          this.#failed(error);
        }
      }
    }
    save_changes() {} // nobody to tell
    send() {}
  }

  function say(host, text, kind) {
    const p = document.createElement("p");
    p.className = `anyhost-${kind}`;
    if (kind === "error") p.setAttribute("role", "alert");
    p.textContent = text;
    host.append(p);
  }

  function failed(elements, error) {
    console.error(error);
    document.documentElement.dataset.anyhost = "failed";
    for (const host of elements)
      if (!host.querySelector(".anyhost-error"))
        say(host, `This explorer stopped: ${error?.message ?? error}`, "error");
  }

  function values({ state, buffers = [] }) {
    // binary traits are kept beside the JSON, in base64
    for (const { path, data } of buffers) {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      path.slice(0, -1).reduce((inner, key) => inner[key], state)[path.at(-1)] = new DataView(bytes.buffer);
    }
    return state;
  }

  /** A function that is called once for each first argument, and remembers what it returned. */
  function once(make) {
    const made = new Map();
    return (key, ...rest) => {
      if (!made.has(key)) made.set(key, make(key, ...rest));
      return made.get(key);
    };
  }

  const frontEnd = once(async (text) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    URL.revokeObjectURL(url);
    return typeof widget === "function" ? widget() : widget;
  });
  const style = once((text) => {
    const element = document.createElement("style");
    element.textContent = text;
    document.head.append(element);
  });
  const model = once(async (id, record) => {
    const made = new Model(values(record), (error) => failed(hosts.get(id), error));
    const { initialize } = await frontEnd(made.get("_esm"));
    const cleanup = await initialize?.({ model: made });
    if (cleanup) cleanups.push(cleanup);
    return made;
  });

  const records = {};
  for (const script of document.querySelectorAll(`script[type="${WIDGET}-state+json"]`))
    Object.assign(records, JSON.parse(script.textContent).state);

  for (const script of document.querySelectorAll(`script[type="${WIDGET}-view+json"]`)) {
    const host = document.createElement("div");
    host.className = "anyhost";
    script.after(host);
    try {
      const id = JSON.parse(script.textContent).model_id;
      const record = records[id];
      if (record?.model_module !== "anywidget") {
        say(host, "This control needs Python: open the notebook in JupyterLab to use it.", "needs-kernel");
        continue;
      }
      hosts.set(id, [...(hosts.get(id) ?? []), host]);
      if (record.state._css) style(record.state._css);
      const shared = await model(id, record);
      const { render } = await frontEnd(shared.get("_esm"));
      const cleanup = await render?.({ model: shared, el: host });
      if (cleanup) cleanups.push(cleanup);
    } catch (error) {
      failed([host], error);
    }
  }
  document.documentElement.dataset.anyhost ??= "ready";
  addEventListener("pagehide", (event) => event.persisted || cleanups.splice(0).forEach((cleanup) => cleanup()));
})();
