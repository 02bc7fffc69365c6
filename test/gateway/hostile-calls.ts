/**
 * Texts of calls by somebody who means no good: made of what the SQL functions write, and of noise.
 */
import { methods } from "../../generated/ts/nats-functions/methods.js";
import type { Random } from "../simulator/random.js";
import { noise, withDamage } from "./protocol/hostile-inputs.js";
import { type Form, formsOfCalls } from "./recording-handler.js";

const asked = Object.keys(methods);
const unknownMethods = "constructor toString valueOf hasOwnProperty prototype Pong publish PING A".split(" ");
const statements = [
  "SELECT 1",
  "SELECT pg_sleep(100)",
  "DROP TABLE hawser_bridge_data.nats_server; --",
  "Publish'; SELECT 1; --",
  "BEGIN",
  "COPY x FROM PROGRAM 'id'",
  "Ping; Ping",
  "Ping {}\nt\n",
  "Publish {} Publish {}",
];
const names = [...new Set([...formsOfCalls.values()].flatMap((forms) => Object.keys(forms)))];
const hostileNames = [
  ..."__proto__ constructor toString hasOwnProperty then toJSON \\u0000 ä".split(" "),
  "",
  "a\u0000b",
];
const hostileNumbers = [..."1e400 -1e400 -0 2147483648 -2147483649 1.5 1e-400 0 60001".split(" "), "9".repeat(400)];
const hostileTexts = [
  ..."a a.b.c a..b > a.* . \\u0000 \\ud800 \\udc00\\ud800 a\\nb ä😀 = QQ== QUJD Q text binary toString %s%n\\\\x".split(
    " ",
  ),
  ...["", " ", "A".repeat(2000)],
];

const damage = [0, 10, 32, 34, 44, 45, 91, 92, 123, 0x80, 0xff];

/** A call. */
export function hostileCall(random: Random): Buffer {
  const roll = random.next();
  if (roll < 0.05) return noise(random, 80);
  if (roll < 0.08) return Buffer.from(random.pick(statements));
  const method = random.pick(asked);
  if (roll < 0.12) return Buffer.from(`${random.pick(unknownMethods)} ${argument(random, method)}`);
  const takesList = methods[method]!.takesList !== random.chance(0.05);
  const argumentText = argument(random, random.chance(0.05) ? random.pick(asked) : method);
  const call = Buffer.concat([Buffer.from(`${method} ${argumentText}`), takesList ? list(random) : Buffer.alloc(0)]);
  return random.chance(0.4) ? withDamage(random, call, damage) : call;
}

/**
 * The values of a good call, of which some are hostile. Most calls have only NULL for optional values: few calls with
 * ten optional values would be good otherwise.
 */
function argument(random: Random, method: string): string {
  if (random.chance(0.02)) return json(random, 0);
  const hasOptional = random.chance(0.3);
  const forms = Object.entries(formsOfCalls.get(method)!).filter(([, form]) => form !== "lists");
  const cells = forms.map(([name, form]) => {
    const usual = form.endsWith("?") && !hasOptional ? "null" : goodValue(random, form);
    const value = random.chance(0.04) ? json(random, 0) : usual;
    return `${JSON.stringify(random.chance(0.01) ? random.pick(hostileNames) : name)}:${value}`;
  });
  if (random.chance(0.02)) cells.push(`"${random.pick(hostileNames)}":${json(random, 0)}`);
  return `{${cells.join(",")}}`;
}

function goodValue(random: Random, form: Form): string {
  switch (form) {
    case "bytes":
      return `"${noise(random, 12).toString("base64")}"`;
    case "bigint":
      return random.pick([
        '"1"',
        '"42"',
        '"9007199254740991"',
        '"9007199254740992"',
        '"0"',
        '"-1"',
        "1",
        '"99999999999999999999"',
      ]);
    case "bigint?":
      return random.pick(["null", "null", "null", '"0"', '"1"', '"60000"', '"-1"', '"9007199254740992"']);
    case "choice?":
      return random.pick(["null", "null", "null", '"old"', '"file"', '"a"']);
    case "texts":
    case "texts?":
      return random.pick([
        ...['["a"]', '["b"]', '["c.d"]', '["a.*","b.>"]', '["a","b","c"]'],
        "null",
        "[]",
        '["a",null]',
        '[["a"]]',
        '["\\u0000"]',
        '"a"',
        "[1]",
      ]);
    case "integer?":
      return random.pick(["null", "null", "-1", "0", "1", "100", "60000"]);
    case "object?":
      return random.pick([
        "null",
        "{}",
        '{"a":"b"}',
        '{"a":["b","c"],"d":[]}',
        '{"__proto__":"x"}',
        `{"a":${json(random, 0)}}`,
      ]);
    case "type":
      return random.pick(['"text"', '"json"', '"jsonb"', '"binary"']);
    case "text?":
      return random.pick(["null", '"a"']);
    case "text":
      return `"${random.pick(["a", "b.c", "d_e", "f-1", "ggggg", "n".repeat(random.between(1, 9)), "n".repeat(300)])}"`;
    case "lists":
      throw new Error("lists are written behind the values");
  }
}

function json(random: Random, depth: number): string {
  switch (random.between(0, depth > 3 ? 5 : 9)) {
    case 0:
      return random.pick(["null", "true", "false"]);
    case 1:
      return random.pick(hostileNumbers);
    case 2:
    case 3:
      return `"${random.pick(hostileTexts)}"`;
    case 4:
      return random.chance(0.02) ? nested(random) : "[]";
    case 5:
      return `"${random.pick(names)}"`;
    case 6:
    case 7:
      return `[${Array.from({ length: random.between(0, 3) }, () => json(random, depth + 1)).join(",")}]`;
    default:
      return `{${Array.from({ length: random.between(0, 3) }, () => `"${random.pick(random.chance(0.5) ? names : hostileNames)}":${json(random, depth + 1)}`).join(",")}}`;
  }
}

/** Deeper than a stack is, now and then. */
function nested(random: Random): string {
  const depth = random.pick([10, 100, 3000, 20_000]);
  const [open, close] = random.chance(0.5) ? ["[", "]"] : ['{"a":', "}"];
  return `${open.repeat(depth)}1${random.chance(0.9) ? close.repeat(depth) : ""}`;
}

function list(random: Random): Buffer {
  const form = random.pick(["t", "t", "t", "t", "b", "b", "b", "b", "n", "x", ""]);
  const elements = Array.from({ length: random.between(0, 4) }, () => noise(random, 6));
  const lengths = elements.map(({ length }) =>
    random.chance(0.05) ? random.pick(["-", "99", "", "1e1", "0"]) : length,
  );
  const all = Buffer.concat(elements);
  const rest = form === "b" ? Buffer.from(all.toString("base64")) : all;
  return Buffer.concat([Buffer.from(`\n${form}${lengths.join(",")}\n`), form === "n" ? Buffer.alloc(0) : rest]);
}
