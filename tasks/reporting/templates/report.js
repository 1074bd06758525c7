// The episode browser. Text of models goes through `textContent` alone: it never becomes markup.
(() => {
  "use strict";
  const ROW = 56; // height of a list row in pixels, as in report.css
  const MOST_SHOWN = 20000; // characters of one message that are shown at once
  const $ = (id) => document.getElementById(id);
  const list = $("list"), space = $("space"), pane = $("episode");
  const fields = { q: $("search"), set: $("set"), state: $("state"), reason: $("reason") };

  let index, shown = [], open = null, found = null, search = 0;
  const inflated = new Map(); // chunk number -> promise of its episodes; a few are kept

  async function inflate(id) {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function chunk(number) {
    if (!inflated.has(number)) {
      if (inflated.size >= 8) inflated.delete(inflated.keys().next().value);
      inflated.set(number, inflate(`chunk-${number}`));
    }
    return inflated.get(number);
  }

  const conversation = async (i) => {
    const number = Math.floor(i / index.chunk);
    return $(`chunk-${number}`) ? (await chunk(number))[i % index.chunk] : null;
  };

  // ---- small pieces of a page ----
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const badge = (text, kind) => element("span", `badge ${kind || ""}`, text.replaceAll("_", " "));
  const number = (n) => n.toLocaleString("en-US");

  // Control characters and those that turn text round are made visible; they could make a reply look like another one.
  const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  function visible(char) {
    const code = char.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : `\u27e8U+${code.toString(16).padStart(4, "0").toUpperCase()}\u27e9`;
  }

  function fill(block, text) {
    let at = 0;
    const query = fields.q.value.trim().toLowerCase();
    const plain = (part) => {
      let from = 0;
      for (const match of part.matchAll(CONTROL)) {
        block.append(part.slice(from, match.index), element("span", "control", visible(match[0])));
        from = match.index + 1;
      }
      block.append(part.slice(from));
    };
    const lower = text.toLowerCase();
    // Some letters change their length with their case; then places do not fit, and nothing is marked.
    for (let hits = 0; query && lower.length === text.length && hits < 200; hits++) {
      const hit = lower.indexOf(query, at);
      if (hit < 0) break;
      plain(text.slice(at, hit));
      block.append(element("mark", "", text.slice(hit, hit + query.length).replace(CONTROL, visible)));
      at = hit + query.length;
    }
    plain(text.slice(at));
  }

  function textBlock(text) {
    const block = element("div", "text");
    fill(block, text.slice(0, MOST_SHOWN));
    if (text.length <= MOST_SHOWN) return [block];
    const more = element("button", "", `Show all ${number(text.length)} characters`);
    more.type = "button";
    more.onclick = () => { block.replaceChildren(); fill(block, text); more.remove(); };
    return [block, more];
  }

  function message(role, text, kind) {
    const made = element("div", `message ${kind || ""}`);
    made.append(element("p", "who", role), ...textBlock(text));
    return made;
  }

  function folded(title, ...inside) {
    const made = element("details");
    made.append(element("summary", "", title), ...inside);
    return made;
  }

  // ---- one episode ----
  function turnBlock(turn, seen) {
    const made = element("section", "turn"), head = element("header");
    head.append(element("b", "", turn.agent_name), element("span", "", `turn ${turn.turn_idx + 1}`));
    head.append(badge(turn.success ? "success" : "no success", turn.success ? "solved" : ""));
    head.append(element("span", "", `reward ${turn.reward}`));
    head.append(element("span", "", `${number(turn.prompt_tokens)} + ${number(turn.completion_tokens)} tokens`));
    if (turn.finish_reason !== "stop") head.append(badge(`ended by ${turn.finish_reason}`, "warn"));
    if (turn.fate) head.append(badge(turn.fate === "kept" || turn.fate === "undecided" ? turn.fate : `rejected: ${turn.fate}`, turn.fate));
    head.append(element("span", "", turn.policy_name));
    made.append(head);
    let old = 0;
    while (old < turn.messages.length && old < seen.length && turn.messages[old].content === seen[old].content) old++;
    const blocks = turn.messages.map((m) => message(m.role, m.content));
    if (old) made.append(folded(`${old} earlier message${old > 1 ? "s" : ""}, as above`, ...blocks.slice(0, old)));
    made.append(...blocks.slice(old));
    if (turn.reasoning) made.append(folded("Reasoning", ...textBlock(turn.reasoning)));
    made.append(message("reply", turn.reply || "(empty)", "reply"));
    return made;
  }

  async function show(i) {
    open = i;
    document.body.classList.toggle("reading", i !== null);
    paint();
    if (i === null) {
      pane.replaceChildren(element("p", "empty", "Choose an episode to read its conversation."));
      return;
    }
    const talk = await conversation(i);
    if (open !== i) return;
    const set = index.sets[index.set[i]], head = element("h3"), facts = element("p", "facts"), parts = [head, facts];
    head.append(`Problem ${index.problem[i]}, rollout ${index.rollout[i]}`, badge(index.state[i], index.state[i]));
    const told = [
      set.name, index.env[i], `difficulty ${index.difficulty[i] || "unknown"}`, `reward ${index.reward[i]}`,
      `${number(index.prompt_tokens[i])} + ${number(index.completion_tokens[i])} tokens`,
    ];
    if (talk) told.push(`${talk.seconds} s`);
    facts.append(...told.map((text) => element("span", "", text)), element("code", "", index.hash[i]));
    if (set.heldout) parts.push(element("p", "note", "A held-out problem. Prompts and data that are changed because of what is read here make the next evaluation look too good."));
    if (!talk) parts.push(element("p", "note", `This page would be too large with this conversation. It is in ${set.where}.`));
    else {
      if (talk.error) {
        const error = element("div", "message error");
        error.append(badge(talk.error.kind, "errored"), ...textBlock(talk.error.message));
        if (talk.error.traceback) error.append(folded("Traceback", ...textBlock(talk.error.traceback)));
        parts.push(error);
      }
      const seen = new Map();
      for (const turn of talk.turns) {
        parts.push(turnBlock(turn, seen.get(turn.agent_name) || []));
        seen.set(turn.agent_name, [...turn.messages, { content: turn.reply }]);
      }
      if (!talk.turns.length) parts.push(element("p", "sum", "No turn was played."));
      if (talk.metadata) parts.push(folded("What the environment noted", ...textBlock(JSON.stringify(talk.metadata, null, 2))));
    }
    pane.replaceChildren(...parts);
    pane.scrollTop = 0;
  }

  // ---- the list: only the rows in view exist ----
  function row(position) {
    const i = shown[position], made = element("div", "row"), top = element("div"), under = element("div");
    made.id = `row-${i}`;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(i === open));
    made.setAttribute("aria-posinset", String(position + 1));
    made.setAttribute("aria-setsize", String(shown.length));
    made.style.top = `${position * ROW}px`;
    const name = `${index.env[i]} #${index.problem[i]}${index.rollout[i] ? `, rollout ${index.rollout[i]}` : ""}`;
    top.append(element("span", "", name), badge(index.error[i] || index.state[i], index.state[i]));
    const rejected = index.fates[i].filter((fate) => fate !== "kept");
    under.append(
      element("span", "", `${index.sets[index.set[i]].name}${rejected.length ? `, ${rejected[0].replaceAll("_", " ")}` : ""}`),
      element("span", "", `${index.turns[i]} turn${index.turns[i] === 1 ? "" : "s"}, ${number(index.completion_tokens[i])} tok`));
    made.append(top, under);
    made.onclick = () => go(i);
    return made;
  }

  function paint() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    const rows = [];
    for (let p = first; p < last; p++) rows.push(row(p));
    space.replaceChildren(...rows);
    const active = rows.find((r) => r.getAttribute("aria-selected") === "true");
    if (active) list.setAttribute("aria-activedescendant", active.id);
    else list.removeAttribute("aria-activedescendant");
  }

  function keepInView(position) {
    if (position * ROW < list.scrollTop) list.scrollTop = position * ROW;
    const under = (position + 1) * ROW - list.clientHeight;
    if (under > list.scrollTop) list.scrollTop = under;
  }

  // ---- filters ----
  function matches(i) {
    const { set, state, reason } = fields;
    if (set.value && index.sets[index.set[i]].name !== set.value) return false;
    if (state.value && index.state[i] !== state.value) return false;
    if (reason.value && !index.fates[i].includes(reason.value)) return false;
    return !found || found.has(i);
  }

  function filter() {
    shown = [];
    for (let i = 0; i < index.hash.length; i++) if (matches(i)) shown.push(i);
    space.style.height = `${shown.length * ROW}px`;
    const all = index.hash.length;
    $("count").textContent = shown.length === all ? `${number(all)} episodes` : `${number(shown.length)} of ${number(all)}`;
    paint();
  }

  const texts = (talk) => [
    ...talk.turns.flatMap((t) => [t.reply, t.reasoning || "", t.agent_name, ...t.messages.map((m) => m.content)]),
    talk.error ? `${talk.error.kind} ${talk.error.message}` : "",
  ];

  // Looks through what the list knows, then through every conversation, chunk by chunk; a newer search ends it.
  async function find() {
    const mine = ++search, query = fields.q.value.trim().toLowerCase();
    if (!query) { found = null; filter(); return; }
    const hits = new Set();
    for (let i = 0; i < index.hash.length; i++) {
      if (`${index.hash[i]} ${index.env[i]} ${index.error[i]}`.toLowerCase().includes(query)) hits.add(i);
    }
    for (let number = 0; $(`chunk-${number}`); number++) {
      const talks = await (inflated.get(number) || inflate(`chunk-${number}`));
      if (mine !== search) return;
      talks.forEach((talk, k) => {
        if (texts(talk).some((text) => text.toLowerCase().includes(query))) hits.add(number * index.chunk + k);
      });
      if (number % 40 === 39) $("count").textContent = `Searching, ${hits.size} found`;
    }
    found = hits;
    filter();
  }

  // ---- the address: #state=unsolved&q=words&e=SET/HASH.ROLLOUT ----
  const name = (i) => `${index.sets[index.set[i]].name}/${index.hash[i]}.${index.rollout[i]}`;

  function address(i) {
    const parts = new URLSearchParams();
    for (const [key, field] of Object.entries(fields)) if (field.value) parts.set(key, field.value);
    if (i !== null) parts.set("e", name(i));
    return `#${parts.toString() || "episodes"}`;
  }

  function go(i) {
    history.replaceState(null, "", address(i));
    return show(i);
  }

  async function follow() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return; // a section of the page
    const parts = new URLSearchParams(hash);
    for (const [key, field] of Object.entries(fields)) {
      const wanted = parts.get(key) || "";
      field.value = wanted;
      if (field.value !== wanted) field.value = "";
    }
    $("episodes").scrollIntoView();
    await find();
    const wanted = parts.get("e");
    if (!wanted) { await show(null); return; }
    const i = index.hash.findIndex((_, k) => name(k) === wanted);
    if (i < 0) {
      await show(null);
      pane.replaceChildren(element("p", "note", "The address names an episode that is not in this page."));
      return;
    }
    keepInView(Math.max(0, shown.indexOf(i)));
    await show(i);
  }

  function step(by) {
    if (!shown.length) return;
    const at = shown.indexOf(open);
    const next = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by));
    keepInView(next);
    go(shown[next]);
  }

  function help() {
    $("help").hidden = !$("help").hidden;
    $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (typing) { event.preventDefault(); event.target.blur(); return; } // else it would empty the search
      if (open !== null) { go(null); return; }
      for (const field of Object.values(fields)) field.value = "";
      find();
      history.replaceState(null, "", "#episodes");
      return;
    }
    if (typing) return;
    const inList = event.target === list;
    if (event.key === "j" || (inList && event.key === "ArrowDown")) step(1);
    else if (event.key === "k" || (inList && event.key === "ArrowUp")) step(-1);
    else if (event.key === "/") { $("episodes").scrollIntoView(); fields.q.focus(); fields.q.select(); }
    else if (event.key === "?") help();
    else return;
    event.preventDefault();
  }

  function options(field, all, values) {
    field.append(new Option(all, ""), ...values.map(([value, count]) => new Option(`${value} (${number(count)})`, value)));
  }

  function counted(values) {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  async function start() {
    index = await inflate("index");
    options(fields.set, "All episodes", index.sets.map((s) => [s.name, s.count]));
    options(fields.state, "Any outcome", counted(index.state));
    options(fields.reason, "Turns: any", counted(index.fates.flat()));
    filter();
    let waiting = 0;
    fields.q.oninput = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { history.replaceState(null, "", address(open)); find(); }, 200);
    };
    for (const key of ["set", "state", "reason"]) {
      fields[key].onchange = () => { history.replaceState(null, "", address(open)); filter(); list.scrollTop = 0; };
    }
    document.querySelector(".filters").onsubmit = (event) => event.preventDefault();
    $("help-button").onclick = help;
    list.onscroll = paint;
    addEventListener("resize", paint);
    addEventListener("keydown", key);
    addEventListener("hashchange", follow);
    await follow();
    document.documentElement.dataset.ready = "yes";
  }

  start().catch((error) => {
    $("count").textContent = `The episodes cannot be shown: ${error.message}`;
  });
})();
