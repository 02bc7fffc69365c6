import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import {
  byPosition,
  callEveryFunction,
  familyOf,
  prepareSamples,
  type SampleCall,
  sampleCalls,
} from "./every-function.js";
import { Witness } from "./witness.js";

/** Where NULL means the default. */
const optional: ReadonlySet<string> = new Set(["reply", "headers", "domain", "timeout"]);

/** The server is shared. */
const isOurs = (stream: string): boolean => stream.includes("nulls");

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** The call with NULL for some of its arguments, of their types. */
function withNull(call: SampleCall, isNull: (parameter: string) => boolean): SampleCall {
  const given = Object.entries(call.given).map(([parameter, literal]) => [
    parameter,
    isNull(parameter) ? "NULL" : literal,
  ]);
  return { ...call, given: Object.fromEntries(given) };
}

it.each(
  sampleCalls("nulls").flatMap((call) =>
    Object.keys(call.given)
      .filter((parameter) => !optional.has(parameter))
      .map((parameter) => ({ call, name: call.name, parameter })),
  ),
)("$name says that its $parameter is NULL, and does nothing", async ({ call, name, parameter }) => {
  const witness = await Witness.open(gateway.nats, "nulls.>");
  const streams = (await witness.streams()).filter(isOurs);
  const error = await gateway.errorOf(byPosition(withNull(call, (one) => one === parameter)));
  expect(error).toMatchObject({
    code: "22004",
    message: `${familyOf(name)}: the argument ${parameter} is NULL, and needs a value`,
    where: expect.stringContaining(name),
    hint: expect.stringMatching(new RegExp(`^Give ${parameter} a value[.;]`)),
  });
  expect(await witness.untaken()).toBe(0);
  expect((await witness.streams()).filter(isOurs)).toEqual(streams);
  witness.close();
});

it("NULL for what is optional means the default, in every function", async () => {
  const witness = await Witness.open(gateway.nats, "nulls_default.>");
  await prepareSamples(witness, "nulls_default");
  const calls = new Map(
    sampleCalls("nulls_default").map((call) => [
      call.name,
      withNull(call, (one) => optional.has(one) && one !== "headers" && one !== "reply"),
    ]),
  );
  await callEveryFunction("nulls_default", witness, async (_sql, { name }) => {
    return (await gateway.client.query(byPosition(calls.get(name)!))).rows;
  });
  await gateway.value("SELECT nats_publish_text('nulls_default.core', 'x', NULL, NULL)");
  const message = await witness.message();
  expect([message.reply ?? "", message.headers]).toEqual(["", undefined]);
});

it("a request without a time limit, or with a negative one, waits for 10 seconds", async () => {
  gateway.nats.subscribe("nulls_silent", { callback: () => undefined });
  await gateway.nats.flush();
  await Promise.all(
    ["NULL", "-1", "-2147483648"].map(async (timeout) => {
      const session = await gateway.connect();
      const start = performance.now();
      const asked = session.query(`SELECT nats_request_text('nulls_silent', 'x', ${timeout})`);
      await expect(asked, timeout).rejects.toMatchObject({ code: "NA001" });
      const taken = performance.now() - start;
      expect(taken, timeout).toBeGreaterThan(9_900);
      // And not for as long as any call may take, which is a minute.
      expect(taken, timeout).toBeLessThan(30_000);
      await session.end();
    }),
  );
});
