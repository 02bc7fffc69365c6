/**
 * The name of this Postgres from real web servers in the place of Patroni, good ones and bad ones.
 */
import type { RequestListener } from "node:http";
import { expect, it } from "vitest";
import { PatroniName } from "../../../src/nats/bridge/role/patroni.js";
import { eventually } from "../../support/eventually.js";
import { slowIt } from "../../support/slow-it.js";
import { httpServer, patroniAnswer } from "./http-server.js";
import { keptLog } from "./log.js";

const never = new AbortController().signal;
const json = { "content-type": "application/json" };

/** Nobody listens there, and fetch goes there. */
const deadPort = 4;

/** Asks the URL once: the name, and what was warned of. */
async function ask(url: string, timeoutMs?: number) {
  const log = keptLog();
  const name = await new PatroniName(log.logger, timeoutMs).read(url, never);
  return { name, problems: log.lines.map(({ details }) => (details as { problem: string }).problem), log };
}

const askOf = async (answer: RequestListener, timeoutMs?: number) => ask(await httpServer(answer), timeoutMs);

it("is .patroni.name of the answer", async () => {
  const asked: string[] = [];
  const url = await httpServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(200, json).end(patroniAnswer("pg-1"));
  });
  expect(await ask(`${url}/patroni`)).toMatchObject({ name: "pg-1", problems: [] });
  expect(asked).toEqual(["GET /patroni"]);
});

it("counts whatever the status is: a replica answers 503 to the question for the primary", async () => {
  const { name, problems } = await askOf((_, response) => response.writeHead(503, json).end(patroniAnswer("pg-2")));
  expect({ name, problems }).toEqual({ name: "pg-2", problems: [] });
});

it.each<[string, RequestListener, string]>([
  [
    "not JSON",
    (_, response) => response.writeHead(404).end("<h1>gone</h1>"),
    "the response, of status 404, is not JSON",
  ],
  ["empty", (_, response) => response.end(), "the response, of status 200, is not JSON"],
  ["not UTF-8", (_, response) => response.end(Buffer.of(0x22, 0xff, 0x22)), "the response, of status 200, is not JSON"],
  ["null", (_, response) => response.end("null"), "the response, of status 200, has no name at .patroni.name"],
  ["without patroni", (_, response) => response.end("{}"), "the response, of status 200, has no name at .patroni.name"],
  [
    "with a number for a name",
    (_, response) => response.end(patroniAnswer(7)),
    "the response, of status 200, has no name at .patroni.name",
  ],
  [
    "with an empty name",
    (_, response) => response.end(patroniAnswer("")),
    "the response, of status 200, has no name at .patroni.name",
  ],
  [
    "too long by one byte",
    (_, response) => response.end(patroniAnswer().padEnd(65_537)),
    "the response is longer than 65536 bytes",
  ],
  ["no HTTP", (_, response) => response.socket?.end("220 mail.example ESMTP\r\n"), "the request failed: HPE_"],
  ["cut off", (_, response) => response.write('{"patroni":', () => response.destroy()), "the request failed: UND_ERR_"],
])("is null where the answer is %s", async (_what, answer, problem) => {
  const { name, problems } = await askOf(answer);
  // The codes of the network may become others with the version of Node.
  expect({ name, problems }).toEqual({ name: null, problems: [expect.stringContaining(problem)] });
});

it("is read from an answer of exactly 64 KiB", async () => {
  expect(await askOf((_, response) => response.end(patroniAnswer().padEnd(65_536)))).toMatchObject({ name: "pg-1" });
});

it("is null if the answer does not end, of which no more than 64 KiB is read", async () => {
  let isCut = false;
  const { name, problems } = await askOf((_, response) => {
    response.on("close", () => {
      isCut = true;
    });
    const write = (): void => {
      while (!response.destroyed && response.write("x".repeat(16_384)));
    };
    response.on("drain", write);
    write();
  });
  expect({ name, problems }).toEqual({ name: null, problems: ["the response is longer than 65536 bytes"] });
  await eventually("the connection is cut", () => isCut);
});

it.each<[string, RequestListener]>([
  ["nothing is answered", () => undefined],
  ["the answer stops in its middle", (_, response) => void response.write('{"patroni":')],
])("is null after the time limit where %s", async (_what, answer) => {
  const { name, problems } = await askOf(answer, 300);
  expect({ name, problems }).toEqual({ name: null, problems: ["the response was not complete within 300 ms"] });
});

slowIt("is waited for 2 s", async () => {
  const { problems } = await askOf(() => undefined);
  expect(problems).toEqual(["the response was not complete within 2000 ms"]);
});

it("is null if the connection is refused", async () => {
  const { name, problems } = await ask(`http://127.0.0.1:${deadPort}/patroni`);
  expect({ name, problems }).toEqual({ name: null, problems: ["the request failed: ECONNREFUSED"] });
});

it("is null if the URL is not valid", async () => {
  expect(await ask("http://127.0.0.1:99999/")).toMatchObject({ name: null, problems: ["the URL is not valid"] });
});

it("is null if it redirects, which is not followed", async () => {
  let asked = 0;
  const { name, problems } = await askOf((_, response) => {
    asked++;
    response.writeHead(307, { location: "/" }).end();
  });
  expect({ name, problems, asked }).toEqual({
    name: null,
    problems: ["the request failed: unexpected redirect"],
    asked: 1,
  });
});

it("what goes wrong is logged once, again when it becomes something else, and again when it was well in between", async () => {
  let body = "nothing";
  const url = await httpServer((_, response) => response.end(body));
  const { logger, messages } = keptLog();
  const patroni = new PatroniName(logger);
  const warnings = async (answer: string) => {
    body = answer;
    await patroni.read(url, never);
    return messages("warn").length;
  };
  expect(await warnings("nothing")).toBe(1);
  expect(await warnings("nothing else")).toBe(1);
  expect(await warnings("{}")).toBe(2);
  expect(await warnings(patroniAnswer())).toBe(2);
  expect(await warnings("{}")).toBe(3);
});

it("neither the secret in an address nor the body of an answer is logged", async () => {
  const url = await httpServer((_, response) => response.end("the body"));
  const urls = [`${url}/secret?token=secret`, "http://127.0.0.1:99999/secret", `http://127.0.0.1:${deadPort}/secret`];
  for (const each of urls) {
    const { log } = await ask(each);
    expect(log.lines).toHaveLength(1);
    expect(JSON.stringify(log.lines)).not.toMatch(/secret|the body/);
  }
});

it("is cancelled without a log line when it is no longer needed", async () => {
  const controller = new AbortController();
  const url = await httpServer(() => controller.abort());
  const { logger, lines } = keptLog();
  expect(await new PatroniName(logger).read(url, controller.signal)).toBeNull();
  expect(await new PatroniName(logger).read(url, controller.signal)).toBeNull();
  expect(lines).toEqual([]);
});
