import { ErrorCode } from "nats";
import { describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { answer, client, errorOf, failure, gate, responder, serviceConnection, testService } from "./support.js";

describe("a request", () => {
  it("is answered by the function of its subject, wildcards included", async () => {
    await using server = await startNatsServer();
    const { service } = testService({
      "public.answer(bytea)": ({ subject, payload }) => answer(`${subject}: ${Buffer.from(payload)}`),
      "public.nothing(bytea)": () => ({ kind: "answer", payload: new Uint8Array(0) }),
    });
    await service.configure([responder("orders.*"), responder("nothing", "public.nothing(bytea)")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    expect((await requester.request("orders.new", "rope")).string()).toBe("orders.new: rope");
    const empty = await requester.request("nothing");
    expect([empty.data.length, empty.headers]).toEqual([0, undefined]);
    expect(service.stats()).toMatchObject({
      running: 0,
      responders: [
        { subject: "orders.*", functionName: "public.answer(bytea)", requests: 1, errors: 0, waiting: 0, running: 0 },
        { subject: "nothing", requests: 1 },
      ],
    });
  });

  it("whose function fails is answered by SQLSTATE and message, and logged without the message", async () => {
    await using server = await startNatsServer();
    const { service, logged } = testService({
      "public.answer(bytea)": ({ payload }) => {
        const word = Buffer.from(payload).toString();
        if (word === "slow") return failure("57014", "canceling statement due to statement timeout", true);
        if (word === "away") return failure("57P01", "terminating connection");
        if (word === "defect") throw new Error("a defect");
        return failure("22P02", `invalid input: "${word}"\nof that`);
      },
    });
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    expect(await errorOf(requester, "ask", "secret")).toEqual([500, 'SQLSTATE 22P02: invalid input: "secret" of that']);
    const timeout = "SQLSTATE 57014: canceling statement due to statement timeout";
    expect(await errorOf(requester, "ask", "slow")).toEqual([504, timeout]);
    expect(await errorOf(requester, "ask", "away")).toEqual([503, "SQLSTATE 57P01: terminating connection"]);
    const defect = "the responder failed by a defect, which its log tells";
    expect(await errorOf(requester, "ask", "defect")).toEqual([500, defect]);
    expect(service.stats().responders).toMatchObject([{ requests: 4, errors: 4, timedOut: 1 }]);
    const words = "public.answer(bytea) on ask: SQLSTATE 22P02";
    expect(logged[0]).toMatchObject({ level: "warn", details: { words }, message: "a responder's function failed" });
    expect(JSON.stringify(logged.map(({ details }) => details))).not.toContain("secret");
    expect(logged.filter(({ level }) => level === "error")).toHaveLength(1);
  });

  it("whose answer the server does not take is answered by an error that says so", async () => {
    await using server = await startNatsServer({ config: "max_payload: 2000" });
    const { service } = testService({
      "public.answer(bytea)": ({ payload }) => answer("x".repeat(Number(Buffer.from(payload)))),
    });
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const words = "the answer has 2001 bytes, and the NATS server takes at most 2000 (max_payload)";
    expect(await errorOf(requester, "ask", "2001")).toEqual([500, words]);
    expect((await requester.request("ask", "2000")).data.length).toBe(2000);
  });

  it("without a reply subject is counted and not run", async () => {
    await using server = await startNatsServer();
    let runs = 0;
    const { service, logged } = testService({
      "public.answer(bytea)": () => {
        runs += 1;
        return answer("");
      },
    });
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    for (let count = 0; count < 100; count++) requester.publish("ask", "anyone?");
    // Its answer comes to the responder itself, as a message without a reply subject.
    requester.publish("ask", "", { reply: "ask" });
    await eventually("all are counted", () => service.stats().responders[0]!.ignored === 101);
    expect(runs).toBe(1);
    expect(logged).toHaveLength(1);
    expect(logged[0]).toMatchObject({ level: "warn", details: { words: "ask" } });
  });
});

describe("many requests", () => {
  it("run so many at once, and are all answered, large answers too", async () => {
    await using server = await startNatsServer();
    let running = 0;
    let most = 0;
    const { service } = testService(
      {
        "public.answer(bytea)": async ({ payload }) => {
          most = Math.max(most, (running += 1));
          await new Promise(setImmediate);
          running -= 1;
          return answer(`${Buffer.from(payload)}`.padEnd(100_000));
        },
      },
      { maxConcurrent: 3 },
    );
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const asked = Array.from({ length: 500 }, (_, number) =>
      requester.request("ask", `${number}`, { timeout: 20_000 }),
    );
    const answers = (await Promise.all(asked)).map((each) => each.string().trim());
    expect(answers).toEqual(asked.map((_, number) => `${number}`));
    expect(most).toBe(3);
  });

  it("of a slow responder do not keep another one waiting; more than may wait are refused at once", async () => {
    await using server = await startNatsServer();
    const slow = gate();
    const { service } = testService(
      {
        "public.slow(bytea)": async () => {
          await slow.opened;
          return answer("at last");
        },
        "public.fast(bytea)": () => answer("at once"),
      },
      { maxConcurrent: 4, maxQueuedPerResponder: 10 },
    );
    await service.configure([responder("slow", "public.slow(bytea)"), responder("fast", "public.fast(bytea)", 2)]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const slowOnes = Array.from({ length: 12 }, () => requester.request("slow", "", { timeout: 20_000 }));
    await eventually("they wait", () => service.stats().responders[0]!.waiting === 10);
    expect(service.stats().running).toBe(2);
    const busy = "busy: too many requests wait for this responder; try again later";
    expect(await errorOf(requester, "slow")).toEqual([503, busy]);
    expect((await requester.request("fast")).string()).toBe("at once");
    slow.open();
    for (const each of await Promise.all(slowOnes)) expect(each.string()).toBe("at last");
    expect(service.stats().responders).toMatchObject([{ requests: 13, errors: 1, busy: 1 }, { requests: 1 }]);
  });

  it("are refused by their bytes, too", async () => {
    await using server = await startNatsServer();
    const slow = gate();
    const { service } = testService(
      { "public.answer(bytea)": () => slow.opened.then(() => answer("")) },
      { maxConcurrent: 1, maxQueuedBytesPerResponder: 10_000 },
    );
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const taken = ["runs", "x".repeat(20_000)].map((payload) => requester.request("ask", payload, { timeout: 20_000 }));
    await eventually("one waits", () => service.stats().responders[0]!.waiting === 1);
    expect((await errorOf(requester, "ask", "x"))?.[0]).toBe(503);
    slow.open();
    for (const each of await Promise.all(taken)) expect(each.headers).toBeUndefined();
  });

  it("run no further while the server does not read their answers", async () => {
    await using server = await startNatsServer();
    const stopped = gate();
    let running = 0;
    let runs = 0;
    const { service } = testService(
      {
        "public.answer(bytea)": async () => {
          running += 1;
          runs += 1;
          await stopped.opened;
          running -= 1;
          return answer("x".repeat(1_000_000));
        },
      },
      { maxConcurrent: 4, responderTimeoutMs: () => 60_000 },
    );
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const asked = Array.from({ length: 50 }, () => requester.request("ask", "", { timeout: 60_000 }));
    await eventually("all have come", () => service.stats().responders[0]!.waiting === 46);
    server.signal("SIGSTOP");
    stopped.open();
    await eventually("slots are held without a function", () => running === 0 && service.stats().running === 4);
    expect(runs).toBeLessThan(10);
    server.signal("SIGCONT");
    for (const each of await Promise.all(asked)) expect(each.data.length).toBe(1_000_000);
  });

  it("that have waited too long for their turn are answered by an error while nothing else moves", async () => {
    await using server = await startNatsServer();
    const hanging = gate();
    let runs = 0;
    const { service } = testService(
      {
        "public.answer(bytea)": async () => {
          runs += 1;
          await hanging.opened;
          return answer("");
        },
      },
      { maxConcurrent: 1, responderTimeoutMs: () => 100 },
    );
    await service.configure([responder("ask")]);
    await service.attach(await serviceConnection(server.url));
    const requester = await client(server.url);
    const first = requester.request("ask", "", { timeout: 20_000 });
    await eventually("it runs", () => runs === 1);
    const words = "waited 100 ms for its turn; the function was not run";
    expect(await errorOf(requester, "ask")).toEqual([504, words]);
    hanging.open();
    await first;
    expect(runs).toBe(1);
    expect(service.stats().responders).toMatchObject([{ requests: 2, errors: 1, timedOut: 1 }]);
  });
});

describe("two processes", () => {
  it("answer each request once for one database, and both for two databases", async () => {
    await using server = await startNatsServer();
    let runs = 0;
    const functions = {
      "public.answer(bytea)": () => {
        runs += 1;
        return answer("");
      },
    };
    for (const database of ["one", "one", "other"]) {
      const { service } = testService(functions, { database });
      await service.configure([responder("ask")]);
      await service.attach(await serviceConnection(server.url));
    }
    const requester = await client(server.url);
    for (let count = 0; count < 50; count++) await requester.request("ask");
    await eventually("those of the other one run", () => runs === 100);
  });
});

describe("without a responder", () => {
  it("a request is told at once that there is none", async () => {
    await using server = await startNatsServer();
    const { service } = testService({});
    const connection = await serviceConnection(server.url);
    await service.attach(connection);
    const requester = await client(server.url);
    const none = { code: ErrorCode.NoResponders };
    await expect(requester.request("ask")).rejects.toMatchObject(none);
    await expect(requester.request("$SRV.PING")).rejects.toMatchObject(none);
    await service.configure([responder("other")]);
    await expect(requester.request("$SRV.PING.unknown")).rejects.toMatchObject(none);
  });
});
