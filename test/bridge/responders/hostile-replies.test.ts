import { expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { answer, client, responder, serviceConnection, testService } from "./support.js";

it("publishes nothing for a requester to subjects of NATS's own", async () => {
  await using server = await startNatsServer();
  let runs = 0;
  const { service, logged } = testService({
    "public.answer(bytea)": ({ payload }) => {
      runs += 1;
      return answer(`${Buffer.from(payload)}`);
    },
  });
  await service.configure([responder("ask")]);
  await service.attach(await serviceConnection(server.url));
  const requester = await client(server.url);
  const heard: string[] = [];
  for (const own of ["$JS.>", "$KV.>", "$SYS.>"]) {
    requester.subscribe(own, { callback: (_error, { subject }) => void heard.push(subject) });
  }
  for (const reply of ["$JS.API.STREAM.DELETE.ORDERS", "$KV.config.key", "$SYS.REQ.X"]) {
    requester.publish("ask", "{}", { reply });
    requester.publish("$SRV.PING", "", { reply });
    requester.publish("$SRV.STATS", "", { reply });
  }
  await eventually("all are counted", () => service.stats().responders[0]!.ignored === 3);
  // What is asked after them is answered after them.
  expect((await requester.request("ask", "fine")).string()).toBe("fine");
  await requester.request("$SRV.PING");
  expect(heard).toEqual([]);
  expect(runs).toBe(1);
  expect(logged).toMatchObject([
    {
      level: "warn",
      details: { words: "ask" },
      message: "a message to a responder has a reply subject of NATS's own, with $: it was not run",
    },
  ]);
});

it("answers to all subjects, but for those of NATS's own and the answers to others", async () => {
  await using server = await startNatsServer();
  const asked: string[] = [];
  const { service } = testService({
    "public.answer(bytea)": ({ subject }) => {
      asked.push(subject);
      return answer("mine");
    },
  });
  await service.configure([responder(">"), responder("$mine.ask", "public.answer(bytea)", 2)]);
  await service.attach(await serviceConnection(server.url));
  const requester = await client(server.url);
  for (const own of ["$JS.API.STREAM.INFO.X", "$KV.config.key", "_INBOX.of.others"]) {
    requester.publish(own, "", { reply: "answers.to.nobody" });
  }
  expect((await requester.request("anything.else")).string()).toBe("mine");
  expect((await requester.request("$mine.ask")).string()).toBe("mine");
  expect(asked).toEqual(["anything.else", "$mine.ask"]);
});

it("answers nothing that comes to an inbox of Hawser, whatever its subject takes in", async () => {
  await using server = await startNatsServer();
  const asked: string[] = [];
  const { service } = testService({
    "public.answer(bytea)": ({ subject }) => {
      asked.push(subject);
      return answer("mine");
    },
  });
  await service.configure(
    ["_INBOX.>", "_INBOX.hawser.*", "*.hawser.x"].map((subject, n) => responder(subject, undefined, n + 1)),
  );
  await service.attach(await serviceConnection(server.url));
  const requester = await client(server.url);
  for (const subject of ["_INBOX.hawser.x", "_INBOX.hawser.x.y", "_INBOX.hawser"]) {
    requester.publish(subject, "for who asked", { reply: "answers.to.nobody" });
  }
  expect((await requester.request("_INBOX.hawsers.x")).string()).toBe("mine");
  expect((await requester.request("other.hawser.x")).string()).toBe("mine");
  expect(asked).toEqual(["_INBOX.hawsers.x", "other.hawser.x"]);
});
