import { type NatsConnection, RequestStrategy, type ServiceClient } from "nats";
import { describe, expect, it } from "vitest";
import { atDepth } from "../../support/depth.js";
import { eventually } from "../../support/eventually.js";
import { slowIt } from "../../support/slow-it.js";
import { answer, client, failure, responder, served } from "./support.js";

/** The client of another library, which says that it has all answers when none has come for a while after another. */
function judge(connection: NatsConnection, maxWait = 20_000): ServiceClient {
  return connection.services.client({ strategy: RequestStrategy.JitterTimer, jitter: 300, maxWait });
}

async function all<T>(answers: Promise<AsyncIterable<T>>): Promise<T[]> {
  const found: T[] = [];
  for await (const each of await answers) found.push(each);
  return found;
}

const byName = (a: { name: string; id: string }, b: { name: string; id: string }): number =>
  `${a.name} ${a.id}`.localeCompare(`${b.name} ${b.id}`);

describe("a client for micro services", () => {
  it("finds every responder by PING, what is added too, and no more what is removed; one by name and id", async () => {
    const { service, requester } = await served({}, { responders: [] });
    const services = judge(requester);
    const found = async () => (await all(services.ping())).sort(byName);
    const [one, two] = [responder("a", "public.one(bytea)"), responder("b", "public.one(bytea)", 2)];
    await service.configure([one]);
    expect((await found()).map(({ name }) => name)).toEqual(["public_one"]);
    await service.configure([one, two, responder("c.>", "public.two(bytea)", 3)]);
    const three = await found();
    expect(three.map(({ name }) => name)).toEqual(["public_one", "public_one", "public_two"]);
    const type = "io.nats.micro.v1.ping_response";
    const { id } = three[2]!;
    expect(three[2]).toEqual({ type, name: "public_two", id, version: "1.2.3", metadata: { from: "hawser" } });
    expect(new Set(three.map((each) => each.id)).size).toBe(3);

    expect((await all(services.ping("public_one"))).sort(byName)).toEqual(three.slice(0, 2));
    expect(await all(services.ping("public_two", id))).toEqual([three[2]]);
    await service.configure([responder("b", "public.three(bytea)", 4)]);
    expect((await found()).map(({ name }) => name)).toEqual(["public_three"]);
    expect(await all(services.ping("public_three"))).toHaveLength(1);
  });

  it("reads what a responder is by INFO", async () => {
    const { requester } = await served({}, { responders: [responder("orders.*")] });
    const services = judge(requester);
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
    const before = new Date();
    const { requester } = await served({
      "public.answer(bytea)": async ({ payload }) => {
        await new Promise(setImmediate);
        return payload.length === 0 ? answer("") : failure("P0001", "a secret of the request");
      },
    });
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
      // Clients that find services read it: it has nothing of the request.
      last_error: "500: SQLSTATE P0001",
    });
    const { processing_time: time, average_processing_time: average } = endpoint!;
    expect(Number.isInteger(time) && time > 0 && time < 10e9).toBe(true);
    expect(average).toBe(Math.round(time / 4));
  });

  slowIt("who asks without end does not keep requests waiting, and all are found afterwards", async () => {
    const count = 100;
    const { server, requester } = await served(
      { "public.answer(bytea)": () => answer("here") },
      {
        responders: Array.from({ length: count }, (_, n) => responder(`a.${n}`, "public.answer(bytea)", n + 1)),
      },
    );
    const stranger = await client(server.url);
    let answers = 0;
    requester.subscribe("nobody.listens", { callback: () => void (answers += 1) });
    await requester.flush();
    const inquiries = atDepth(5_000);
    for (let n = 0; n < inquiries; n++) stranger.publish("$SRV.INFO", "", { reply: "nobody.listens" });
    await stranger.flush();
    expect((await requester.request("a.0", "", { timeout: 120_000 })).string()).toBe("here");
    const before = answers;
    // An inquiry that too many others wait before has no answer.
    const found = async () => (await all(judge(requester, 2_000).ping())).length;
    await eventually("all are found", async () => (await found()) === count, 120_000);
    expect(answers, "answers that came after that of the request").toBeGreaterThan(before);
  });
});
