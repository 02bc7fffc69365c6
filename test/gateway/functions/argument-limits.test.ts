/**
 * Every argument of every SQL function has a limit, which Postgres holds it to. Those of many bytes are in the slow tier.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Spec } from "../../../codegen/model/spec.js";
import { atDepth } from "../../support/depth.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import {
  callsWithNull,
  isLong,
  limitedCalls,
  limitedFunctions,
  projectSpec,
  quickBytes,
  representatives,
} from "./limited-arguments.js";
import { expectRefused, expectTaken } from "./limits-hold.js";

let gateway: TestGateway;
let spec: Spec;
beforeAll(async () => {
  [gateway, spec] = await Promise.all([testGateway(), projectSpec()]);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** They take texts and lists from the checks themselves, and do nothing with them. */
const ofTheChecks = /^hawser\.(error_sqlstate|refuse_argument|list_excess|header_excess)$/;

it("the spec has each function that roles may execute, and a limit of each argument that can be long", async () => {
  const { rows } = await gateway.client.query<{ name: string; takes: string[]; names: string[] }>(`
    SELECT CASE n.nspname WHEN 'hawser' THEN 'hawser.' ELSE '' END || p.proname AS name, p.proargnames[1:p.pronargs] AS names,
           ARRAY(SELECT format_type(t.oid, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (oid, nth) ORDER BY t.nth) AS takes
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE (n.nspname = 'hawser' OR n.nspname = 'public' AND p.proname ~ '^(nats_|pgnats_|litmus_)')
       AND p.prorettype <> 'trigger'::regtype AND EXISTS (
        SELECT FROM pg_roles AS r WHERE r.rolname = ANY ('{hawser_peer,hawser_nats,hawser_bridge,hawser_executor,hawser_viewer}')
           AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))`);
  const found = rows
    .filter(({ name }) => !ofTheChecks.test(name))
    .flatMap(({ name, takes, names }) => takes.flatMap((type, nth) => (isLong(type) ? [`${name} ${names[nth]}`] : [])));
  const limited = limitedFunctions(spec).flatMap(({ name, parameters }) =>
    parameters
      .filter(({ rules }) => [rules.maxBytes, rules.maxItems, rules.in].some((rule) => rule !== undefined))
      .map((parameter) => `${name} ${parameter.name}`),
  );
  expect(found.length).toBeGreaterThan(250);
  expect(limited).toEqual(expect.arrayContaining(found));
});

/** True at full depth: functions are tried, too, that differ from others by the type of the payload alone. */
const isExhaustive = atDepth(10) === 10;
const quickCalls = () => limitedCalls(spec).filter(({ bytes }) => bytes <= quickBytes);

it("each call with an argument above its limit is refused, and says so", async () => {
  expect(quickCalls().length).toBeGreaterThan(300);
  for (const call of quickCalls()) {
    if (isExhaustive || call.isFirstOfItsKind) await expectRefused(gateway.client, call);
  }
});

it("no argument at its limit is too long", async () => {
  const calls = isExhaustive ? quickCalls() : representatives(quickCalls());
  for (const call of calls) await expectTaken(gateway.client, call);
});

it("each call with NULL for an argument that is not optional is refused, and says which one", async () => {
  const calls = callsWithNull(spec);
  expect(calls.length).toBeGreaterThan(200);
  for (const { what, argument, sql } of calls) {
    expect(await gateway.errorOf(sql), what).toMatchObject({
      code: "22004",
      message: expect.stringMatching(
        new RegExp(`: the argument ${argument} is (NULL|a list with a NULL), and (needs|must have) a value`),
      ),
      hint: expect.stringMatching(/\bvalue\b/),
    });
  }
});

const enqueues = [
  "hawser.enqueue('a', X, stream => false)",
  "hawser.enqueue('t', X)",
  "hawser.enqueue('a', X::bytea, stream => false)",
];

it.each(isExhaustive ? enqueues : enqueues.slice(0, 1))(
  "%s is refused above 64 MiB, whatever is NULL beside it",
  async (call) => {
    const text = `SELECT ${call.replace("X", "repeat('x', 67108865)")}`;
    expect(await gateway.errorOf(text)).toMatchObject({
      code: "22023",
      message: expect.stringMatching(
        /the argument payload is 67108865 bytes long, and must be (at most|1 to) 67108864 bytes long/,
      ),
      hint: expect.stringMatching(/must be (at most|1 to) 67108864 bytes long/),
    });
    expect((await gateway.client.query("SELECT count(*)::int AS count FROM hawser_data.outbox")).rows).toEqual([
      { count: 0 },
    ]);
  },
);
