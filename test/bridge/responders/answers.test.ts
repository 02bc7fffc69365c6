/**
 * Answers to requests over real servers: results, errors, no answer; many at once; and requests that nobody should
 * send.
 */
import { ErrorCode } from "nats";
import { describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { answer, errorOf, failure, gate, responder, served, serviceConnection, testService } from "./support.js";

const long = { timeout: 60_000 };

describe("a request", () => {
  it("is answered by the function of its subject, wildcards included; of two for one subject the older one answers", async () => {
    const { service, requester } = await served(
      {
        "public.answer(bytea)": ({ subject, payload }) => answer(`${subject}: ${Buffer.from(payload)}`),
        "public.nothing(bytea)": () => ({ kind: "answer", payload: new Uint8Array(0) }),
      },
      { responders: [responder("orders.*"), responder("nothing", "public.nothing(bytea)")] },
    );
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
    await service.configure([responder("two"), responder("two", "public.nothing(bytea)", 2)]);
    expect((await requester.request("two")).string()).toBe("two: ");
  });

  it("whose function fails is answered by SQLSTATE and message, and logged without the message", async () => {
    const { service, logged, requester } = await served({
      "public.answer(bytea)": ({ payload }) => {
        const word = Buffer.from(payload).toString();
        if (word === "slow") return failure("57014", "canceling statement due to statement timeout", true);
        if (word === "away") return failure("57P01", "terminating connection");
        if (word === "defect") throw new Error("a defect");
        return failure("22P02", `invalid input: "${word}"\nof that`);
      },
    });
    for (const [word, code, words] of [
      ["secret", 500, 'SQLSTATE 22P02: invalid input: "secret" of that'],
      ["slow", 504, "SQLSTATE 57014: canceling statement due to statement timeout"],
      ["away", 503, "SQLSTATE 57P01: terminating connection"],
      ["defect", 500, "internal error of the responder; its log has the details"],
    ] as const) {
      expect(await errorOf(requester, "ask", word)).toEqual([code, words]);
    }
    expect(service.stats().responders).toMatchObject([{ requests: 4, errors: 4, timedOut: 1 }]);
    const words = "public.answer(bytea) on ask: SQLSTATE 22P02";
    expect(logged[0]).toMatchObject({ level: "warn", details: { words }, message: "a responder's function failed" });
    expect(JSON.stringify(logged.map(({ details }) => details))).not.toContain("secret");
    expect(logged.filter(({ level }) => level === "error")).toHaveLength(1);
  });

  it("whose answer is no bytes, which no runner should hand over, is logged, and the next one runs", async () => {
    const outcomes = [{ kind: "answer", payload: "no bytes" } as never, answer("bytes")];
    const { logged, requester } = await served(
      { "public.answer(bytea)": () => outcomes.shift()! },
      { responderSessions: 1 },
    );
    await requester.request("ask", "", { timeout: 200 }).catch(() => undefined);
    expect((await requester.request("ask")).string()).toBe("bytes");
    expect(logged.filter(({ level }) => level === "error").map(({ message }) => message)).toEqual([
      "cannot answer a request",
    ]);
  });

  it("without a reply subject, or with one of NATS's own, is counted and not run, and nothing is published there", async () => {
    let runs = 0;
    const { service, logged, requester } = await served({
      "public.answer(bytea)": () => {
        runs += 1;
        return answer("");
      },
    });
    const heard: string[] = [];
    for (const own of ["$JS.>", "$KV.>", "$SYS.>"]) {
      requester.subscribe(own, { callback: (_error, { subject }) => void heard.push(subject) });
    }
    for (let count = 0; count < 100; count++) requester.publish("ask", "anyone?");
    // Its answer comes to the responder itself, as a message without a reply subject.
    requester.publish("ask", "", { reply: "ask" });
    for (const reply of ["$JS.API.STREAM.DELETE.ORDERS", "$KV.config.key", "$SYS.REQ.X"]) {
      requester.publish("ask", "{}", { reply });
      requester.publish("$SRV.PING", "", { reply });
      requester.publish("$SRV.STATS", "", { reply });
    }
    await eventually("all are counted", () => service.stats().responders[0]!.ignored === 104);
    expect(runs).toBe(1);
    // What is asked after them is answered after them.
    await requester.request("ask");
    await requester.request("$SRV.PING");
    expect(heard).toEqual([]);
    expect(logged).toMatchObject([
      { level: "warn", details: { words: "ask" } },
      {
        level: "warn",
        details: { words: "ask" },
        message: "a message to a responder has a reply subject of NATS itself, with $, so it was not run",
      },
    ]);
  });

  it("fails at once if there is no responder", async () => {
    const { service, requester } = await served({}, { responders: [] });
    const none = { code: ErrorCode.NoResponders };
    await expect(requester.request("ask")).rejects.toMatchObject(none);
    await expect(requester.request("$SRV.PING")).rejects.toMatchObject(none);
    await service.configure([responder("other")]);
    await expect(requester.request("$SRV.PING.unknown")).rejects.toMatchObject(none);
  });
});

describe("a responder", () => {
  it.each([
    // Those of NATS's own and the answers to others are not for it.
    {
      subjects: [">", "$mine.ask"],
      ignored: ["$JS.API.STREAM.INFO.X", "$KV.config.key", "_INBOX.of.others"],
      answered: ["anything.else", "$mine.ask"],
    },
    {
      subjects: ["_INBOX.>", "_INBOX.hawser.*", "*.hawser.x"],
      ignored: ["_INBOX.hawser.x", "_INBOX.hawser.x.y", "_INBOX.hawser"],
      answered: ["_INBOX.hawsers.x", "other.hawser.x"],
    },
  ])("to $subjects answers $answered, and not $ignored", async ({ subjects, ignored, answered }) => {
    const asked: string[] = [];
    const { requester } = await served(
      {
        "public.answer(bytea)": ({ subject }) => {
          asked.push(subject);
          return answer("mine");
        },
      },
      { responders: subjects.map((subject, n) => responder(subject, undefined, n + 1)) },
    );
    for (const subject of ignored) requester.publish(subject, "for who asked", { reply: "answers.to.nobody" });
    for (const subject of answered) expect((await requester.request(subject)).string()).toBe("mine");
    expect(asked).toEqual(answered);
  });
});

describe("many requests", () => {
  it("run so many at once, and are all answered, large answers too", async () => {
    let running = 0;
    let most = 0;
    const { requester } = await served(
      {
        "public.answer(bytea)": async ({ payload }) => {
          most = Math.max(most, (running += 1));
          await new Promise(setImmediate);
          running -= 1;
          return answer(`${Buffer.from(payload)}`.padEnd(100_000));
        },
      },
      { responderSessions: 3, responderTimeoutMs: () => long.timeout },
    );
    const asked = Array.from({ length: 100 }, (_, number) => requester.request("ask", `${number}`, long));
    const answers = (await Promise.all(asked)).map((each) => each.string().trim());
    expect(answers).toEqual(asked.map((_, number) => `${number}`));
    expect(most).toBe(3);
  });

  it("of a slow responder do not keep another one waiting; more than may wait are refused at once", async () => {
    const slow = gate();
    const { service, requester } = await served(
      {
        "public.slow(bytea)": async () => {
          await slow.opened;
          return answer("at last");
        },
        "public.fast(bytea)": () => answer("at once"),
      },
      {
        responders: [responder("slow", "public.slow(bytea)"), responder("fast", "public.fast(bytea)", 2)],
        ...{ responderSessions: 4, maxQueuedRequests: 10 },
      },
    );
    const slowOnes = Array.from({ length: 12 }, () => requester.request("slow", "", long));
    await eventually("they wait", () => service.stats().responders[0]!.waiting === 10);
    expect(service.stats().running).toBe(2);
    const busy = "busy: too many requests wait for this responder; try again later";
    expect(await errorOf(requester, "slow")).toEqual([503, busy]);
    expect((await requester.request("fast")).string()).toBe("at once");
    slow.open();
    for (const each of await Promise.all(slowOnes)) expect(each.string()).toBe("at last");
    expect(service.stats().responders).toMatchObject([{ requests: 13, errors: 1, busy: 1 }, { requests: 1 }]);
  });

  it("leave slots for other responders, the last one for a responder that runs nothing", async () => {
    const slow = gate();
    const { service, requester } = await served(
      { "public.answer(bytea)": () => slow.opened.then(() => answer("")) },
      {
        responders: [..."abcd"].map((subject, n) => responder(subject, undefined, n + 1)),
        ...{ responderSessions: 8, responderTimeoutMs: () => long.timeout },
      },
    );
    const asked: Promise<unknown>[] = [];
    for (const [subject, requests, running] of [
      ["a", 20, 5],
      ["b", 20, 2],
      ["c", 1, 1],
      ["d", 1, 0],
    ] as const) {
      for (let nth = 0; nth < requests; nth++) asked.push(requester.request(subject, "", long));
      await eventually("some run, the others wait", () => {
        const found = service.stats().responders.find((each) => each.subject === subject)!;
        return found.running === running && found.waiting === requests - running;
      });
    }
    slow.open();
    await Promise.all(asked);
  });

  it("have all slots when the other responders are gone", async () => {
    const slow = gate();
    const { service, requester } = await served(
      { "public.answer(bytea)": () => slow.opened.then(() => answer("")) },
      {
        responders: [responder("ask"), responder("other", undefined, 2)],
        ...{ responderSessions: 4, responderTimeoutMs: () => long.timeout },
      },
    );
    const asked = Array.from({ length: 6 }, () => requester.request("ask", "", long));
    await eventually("four wait", () => service.stats().responders[0]!.waiting === 4);
    await service.configure([responder("ask")]);
    await eventually("two wait", () => service.stats().responders[0]!.waiting === 2);
    expect(service.stats().running).toBe(4);
    slow.open();
    await Promise.all(asked);
  });

  it("are refused by their bytes, too", async () => {
    const slow = gate();
    const { service, requester } = await served(
      { "public.answer(bytea)": () => slow.opened.then(() => answer("")) },
      { responderSessions: 1, maxQueuedRequestBytes: 10_000 },
    );
    const taken = ["runs", "x".repeat(20_000)].map((payload) => requester.request("ask", payload, long));
    await eventually("one waits", () => service.stats().responders[0]!.waiting === 1);
    expect((await errorOf(requester, "ask", "x"))?.[0]).toBe(503);
    slow.open();
    for (const each of await Promise.all(taken)) expect(each.headers).toBeUndefined();
  });

  it("run no further while the server does not read their answers", async () => {
    const stopped = gate();
    let running = 0;
    let runs = 0;
    const { server, service, requester } = await served(
      {
        "public.answer(bytea)": async () => {
          running += 1;
          runs += 1;
          await stopped.opened;
          running -= 1;
          return answer("x".repeat(1_000_000));
        },
      },
      { responderSessions: 4, responderTimeoutMs: () => 60_000 },
    );
    const asked = Array.from({ length: 24 }, () => requester.request("ask", "", { timeout: 60_000 }));
    await eventually("all have come", () => service.stats().responders[0]!.waiting === 20);
    server.signal("SIGSTOP");
    stopped.open();
    await eventually("slots are held without a function", () => running === 0 && service.stats().running === 4);
    expect(runs).toBeLessThan(10);
    server.signal("SIGCONT");
    for (const each of await Promise.all(asked)) expect(each.data.length).toBe(1_000_000);
  });

  it("that have waited too long for their turn are answered by an error while nothing else moves", async () => {
    const hanging = gate();
    let runs = 0;
    const { service, requester } = await served(
      {
        "public.answer(bytea)": async () => {
          runs += 1;
          await hanging.opened;
          return answer("");
        },
      },
      { responderSessions: 1, responderTimeoutMs: () => 100 },
    );
    const first = requester.request("ask", "", long);
    await eventually("it runs", () => runs === 1);
    expect(await errorOf(requester, "ask")).toEqual([
      504,
      "the request waited 100 ms in the queue; the function was not run",
    ]);
    hanging.open();
    await first;
    expect(runs).toBe(1);
    expect(service.stats().responders).toMatchObject([{ requests: 2, errors: 1, timedOut: 1 }]);
  });

  it("are each answered once by two processes for one database, and by both for two databases", async () => {
    let runs = 0;
    const functions = {
      "public.answer(bytea)": () => {
        runs += 1;
        return answer("");
      },
    };
    const { server, requester } = await served(functions, { database: "one" });
    for (const database of ["one", "other"]) {
      const { service } = testService(functions, { database });
      await service.configure([responder("ask")]);
      await service.attach(await serviceConnection(server.url));
    }
    for (let count = 0; count < 50; count++) await requester.request("ask");
    await eventually("those of the other one run", () => runs === 100);
  });
});
