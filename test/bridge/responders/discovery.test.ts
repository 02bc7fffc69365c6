import { type NatsConnection, RequestStrategy, type ServiceClient } from "nats";
import { describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { answer, client, failure, responder, serviceConnection, testService } from "./support.js";

/** The client of another library, which says that it has all answers when none has come for a second. */
function judge(connection: NatsConnection): ServiceClient {
  return connection.services.client({ strategy: RequestStrategy.JitterTimer, jitter: 1_000, maxWait: 20_000 });
}

async function all<T>(answers: Promise<AsyncIterable<T>>): Promise<T[]> {
  const found: T[] = [];
  for await (const each of await answers) found.push(each);
  return found;
}

const byName = (a: { name: string; id: string }, b: { name: string; id: string }): number =>
  `${a.name} ${a.id}`.localeCompare(`${b.name} ${b.id}`);

describe("a client for micro services", () => {
  it("finds every responder by PING, and one by name and id", async () => {
    await using server = await startNatsServer();
    const { service } = testService({});
    await service.configure([
      responder("a", "public.one(bytea)"),
      responder("b", "public.one(bytea)", 2),
      responder("c.>", "public.two(bytea)", 3),
    ]);
    await service.attach(await serviceConnection(server.url));
    const services = judge(await client(server.url));
    const found = (await all(services.ping())).sort(byName);
    expect(found.map(({ name }) => name)).toEqual(["public_one", "public_one", "public_two"]);
    const type = "io.nats.micro.v1.ping_response";
    const { id } = found[2]!;
    expect(found[2]).toEqual({ type, name: "public_two", id, version: "1.2.3", metadata: { from: "hawser" } });
    expect(new Set(found.map((each) => each.id)).size).toBe(3);

    expect((await all(services.ping("public_one"))).sort(byName)).toEqual(found.slice(0, 2));
    expect(await all(services.ping("public_two", id))).toEqual([found[2]]);
  });

  it("reads what a responder is by INFO", async () => {
    await using server = await startNatsServer();
    const { service } = testService({});
    await service.configure([responder("orders.*")]);
    await service.attach(await serviceConnection(server.url));
    const services = judge(await client(server.url));
    const [info] = await all(services.info());
    const metadata = { function: "public.answer(bytea)" };
    expect(info).toEqual({
      type: "io.nats.micro.v1.info_response",
      name: "public_answer",
      id: info!.id,
      version: "1.2.3",
      metadata: { from: "hawser" },
      description: "The SQL function public.answer(bytea) answers requests to orders.*.",
      endpoints: [
        { name: "public_answer", subject: "orders.*", queue_group: expect.stringMatching(/^hawser_/), metadata },
      ],
    });
    expect(await all(services.info("public_answer", info!.id))).toEqual([info]);
  });

  it("reads by STATS what was counted", async () => {
    await using server = await startNatsServer();
    const { service } = testService({
      "public.answer(bytea)": async ({ payload }) => {
        await new Promise(setImmediate);
        return payload.length === 0 ? answer("") : failure("P0001", "a secret of the request");
      },
    });
    const before = new Date();
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const services = judge(requester);
    const [fresh] = await all(services.stats());
    expect(fresh!.endpoints).toMatchObject([{ num_requests: 0, num_errors: 0, last_error: "", processing_time: 0 }]);
    for (const payload of ["", "", "fails", ""]) await requester.request("ask", payload);

    const [stats] = await all(services.stats("public_answer", fresh!.id));
    expect(stats).toMatchObject({ type: "io.nats.micro.v1.stats_response", name: "public_answer", version: "1.2.3" });
    const started = new Date(stats!.started);
    expect(started.getTime()).toBeGreaterThanOrEqual(before.getTime());
    expect(stats!.started).toBe(started.toISOString());
    const [endpoint] = stats!.endpoints!;
    expect(endpoint).toMatchObject({
      ...{ name: "public_answer", subject: "ask", num_requests: 4, num_errors: 1 },
      // Whoever finds services reads it: it has nothing of the request.
      last_error: "500: SQLSTATE P0001",
    });
    const { processing_time: time, average_processing_time: average } = endpoint!;
    expect(Number.isInteger(time) && time > 0 && time < 10e9).toBe(true);
    expect(average).toBe(Math.round(time / 4));
  });

  it("finds what is added, and no more what is removed", async () => {
    await using server = await startNatsServer();
    const { service } = testService({});
    await service.attach(await serviceConnection(server.url));
    const services = judge(await client(server.url));
    const names = async () => (await all(services.ping())).map(({ name }) => name).sort();
    await service.configure([responder("a", "public.one(bytea)")]);
    expect(await names()).toEqual(["public_one"]);
    await service.configure([responder("a", "public.one(bytea)"), responder("b", "public.two(bytea)", 2)]);
    expect(await names()).toEqual(["public_one", "public_two"]);
    await service.configure([responder("b", "public.three(bytea)", 3)]);
    expect(await names()).toEqual(["public_three"]);
    expect(await all(services.ping("public_three"))).toHaveLength(1);
  });

  it("who asks without end does not keep requests waiting, and all are found afterwards", async () => {
    await using server = await startNatsServer();
    const { service } = testService({ "public.answer(bytea)": () => answer("here") });
    const count = 200;
    await service.configure(
      Array.from({ length: count }, (_, n) => responder(`a.${n}`, "public.answer(bytea)", n + 1)),
    );
    await service.attach(await serviceConnection(server.url));
    const stranger = await client(server.url);
    const requester = await client(server.url);
    const since = performance.now();
    for (let n = 0; n < 5_000; n++) stranger.publish("$SRV.INFO", "", { reply: "nobody.listens" });
    await stranger.flush();
    expect((await requester.request("a.0")).string()).toBe("here");
    // A million answers take half a minute, and more where the machine has other work.
    expect(performance.now() - since).toBeLessThan(15_000);
    await eventually("all are found", async () => (await all(judge(requester).ping())).length === count, 40_000);
  });
});
