// Shows /openapi.json and sends requests to this same server; needs nothing from anywhere else.
"use strict";

const $ = (id) => document.getElementById(id);
let description = {};

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  Object.assign(made, attributes);
  for (const part of [content].flat()) if (part !== null && part !== undefined) made.append(part);
  return made;
}

function resolve(schema) {
  for (let steps = 0; schema && schema.$ref && steps < 20; steps++) {
    schema = schema.$ref.split("/").slice(1).reduce((at, name) => (at || {})[name], description);
  }
  return schema || {};
}

function kind(schema) {
  if (schema && schema.$ref) return schema.$ref.split("/").pop();
  const choices = (schema && (schema.anyOf || schema.oneOf)) || null;
  if (choices) return [...new Set(choices.map(kind))].join(" | ");
  if (schema && schema.type === "array") return `list of ${kind(schema.items)}`;
  return String((schema && (schema.type || (schema.enum && schema.enum.join(" | ")))) || "any");
}

function headers(more = {}) {
  const key = $("key").value.trim();
  return key ? { Authorization: `Bearer ${key}`, ...more } : more;
}

// What a request to the best-known routes looks like; the others start with their required fields.
function example(path, schema) {
  const model = $("model").value || "MODEL";
  const messages = [{ role: "user", content: "Say hello." }];
  if (path.startsWith("/v1/chat/completions") || path === "/invocations") return { model, messages, max_tokens: 64 };
  if (path.startsWith("/v1/messages")) return { model, messages, max_tokens: 64 };
  if (path.startsWith("/v1/completions")) return { model, prompt: "Hello", max_tokens: 16 };
  if (path === "/v1/responses") return { model, input: "Say hello.", max_output_tokens: 64 };
  if (path === "/tokenize") return { model, prompt: "Hello" };
  if (path === "/detokenize") return { model, tokens: [1, 2, 3] };
  return Object.fromEntries((resolve(schema).required || []).map((name) => [name, name === "model" ? model : null]));
}

function fields(schema) {
  const whole = resolve(schema);
  const required = new Set(whole.required || []);
  const rows = Object.entries(whole.properties || {}).map(([name, field]) =>
    element("tr", [
      element("td", name + (required.has(name) ? " *" : ""), { className: "path" }),
      element("td", kind(field), { className: "quiet" }),
      element("td", field.description || ""),
    ]));
  return rows.length ? element("details", [element("summary", `${rows.length} fields`), element("table", rows)]) : null;
}

async function send(verb, path, body, out, status) {
  out.textContent = "";
  status.className = "quiet";
  status.textContent = "…";
  const began = performance.now();
  try {
    const options = { method: verb.toUpperCase(), headers: headers(body ? { "Content-Type": "application/json" } : {}) };
    if (body) options.body = body;
    const answer = await fetch(path, options);
    const reader = answer.body ? answer.body.getReader() : null;
    const decoder = new TextDecoder();
    for (let part; reader && !(part = await reader.read()).done; ) out.append(decoder.decode(part.value, { stream: true }));
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    status.textContent = `${answer.status} after ${seconds} s, request id ${answer.headers.get("x-request-id") || "none"}`;
    status.className = answer.ok ? "good" : "bad";
    if ((answer.headers.get("content-type") || "").includes("json")) {
      out.textContent = JSON.stringify(JSON.parse(out.textContent), null, 2);
    }
  } catch (error) {
    status.textContent = String(error);
    status.className = "bad";
  }
}

function operation(path, verb, told) {
  const content = ((told.requestBody || {}).content || {})["application/json"];
  const where = element("input", null, { value: path, size: 60, className: "path" });
  const body = content ? element("textarea", null, { spellcheck: false }) : null;
  const status = element("p", "", { className: "quiet" });
  const out = element("pre", "");
  const button = element("button", "Send");
  button.addEventListener("click", () => send(verb, where.value, body && body.value, out, status));
  const box = element("details", [
    element("summary", [element("span", verb, { className: "verb" }), element("span", path, { className: "path" }),
      element("span", told.summary ? ` — ${told.summary}` : "", { className: "quiet" })]),
    told.description ? element("p", told.description) : null,
    content ? fields(content.schema) : null,
    element("p", where), body, element("p", button), status, out,
  ]);
  box.addEventListener("toggle", () => {
    if (box.open && body && !body.value) body.value = JSON.stringify(example(path, content.schema), null, 2);
  });
  return box;
}

async function models() {
  try {
    const list = (await (await fetch("/v1/models", { headers: headers() })).json()).data || [];
    $("model").replaceChildren(...list.map((model) => element("option", model.id)));
  } catch { /* the server is starting, or wants a key */ }
}

async function show() {
  description = await (await fetch("/openapi.json")).json();
  $("title").textContent = document.title = `${description.info.title} ${description.info.version}`;
  $("about").textContent = description.info.description || "";
  const boxes = [];
  for (const [path, verbs] of Object.entries(description.paths)) {
    for (const [verb, told] of Object.entries(verbs)) if (told && told.responses) boxes.push(operation(path, verb, told));
  }
  $("routes").replaceChildren(...boxes);
  await models();
}

$("key").addEventListener("change", models);
show().catch((error) => $("routes").replaceChildren(element("p", `The description cannot be read: ${error}`)));
