/**
 * Typed messages on the command line, with an image that buf has built.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  create,
  createFileRegistry,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonValue,
  toBinary,
} from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { projectDirectory } from "../support/program.js";
import { hawser, jsonLines } from "./support/hawser.js";

const proto = `
syntax = "proto3";
package acme.v1;
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
message OrderPlaced {
  string order_id = 1;
  uint64 cents = 2;
  google.protobuf.Timestamp at = 3;
  google.protobuf.Any extra = 4;
}
`;

const directory = mkdtempSync(join(tmpdir(), "hawser-image-"));
const image = join(directory, "image.binpb");
let orderPlaced: DescMessage;
let set: FileDescriptorSet;

beforeAll(() => {
  writeFileSync(join(directory, "buf.yaml"), "version: v2\n");
  writeFileSync(join(directory, "order.proto"), proto);
  execFileSync(join(projectDirectory, "node_modules/.bin/buf"), ["build", "-o", image], { cwd: directory });
  set = fromBinary(FileDescriptorSetSchema, readFileSync(image));
  orderPlaced = createFileRegistry(set).getMessage("acme.v1.OrderPlaced")!;
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const value: JsonValue = {
  orderId: "17",
  cents: "18446744073709551615",
  at: "2030-01-31T12:00:00Z",
  extra: { "@type": "type.googleapis.com/acme.v1.OrderPlaced", orderId: "inner" },
};

const encoded = (): Uint8Array => {
  const registry = createFileRegistry(set);
  return toBinary(orderPlaced, fromJson(orderPlaced, value, { registry }));
};

const typedAs = (type: string, media = "application/x-protobuf"): Record<string, string> => ({
  "Content-Type": `${media}; type=${type}`,
});

let world: PeerWorld;
beforeAll(async () => {
  world = await peerWorld({ keepsConnections: true });
});
afterAll(() => world[Symbol.asyncDispose]());

/** Payloads and headers: of a type, of the type as JSON, of none, of an unknown one, and of one that does not decode. */
const messages = (): [string | Uint8Array, Record<string, string>?][] => [
  [encoded(), typedAs("acme.v1.OrderPlaced")],
  ['{"order_id": "18"}', typedAs('"acme.v1.OrderPlaced"', "application/json; charset=utf-8")],
  ["plain", { "content-type": "text/plain" }],
  [new Uint8Array([8, 1]), typedAs("acme.v1.Unknown")],
  [new Uint8Array([10, 200]), typedAs("acme.v1.OrderPlaced")],
  ['{"order": 1}', typedAs("acme.v1.OrderPlaced", "application/json")],
];

const type = "acme.v1.OrderPlaced";
const asJson = () => [
  { payload: value, encoding: "json", type },
  { payload: { orderId: "18" }, encoding: "json", type },
  { payload: "plain", encoding: "utf8" },
  { payload: "\u0008\u0001", encoding: "utf8", type: "acme.v1.Unknown", note: `acme.v1.Unknown is not in ${image}` },
  {
    payload: "Csg=",
    encoding: "base64",
    type,
    note: expect.stringMatching(/^does not decode as acme.v1.OrderPlaced: ./),
  },
  { payload: '{"order": 1}', encoding: "utf8", type, note: expect.stringMatching(/does not decode .*"order"/) },
];

describe("hawser listen --descriptors", () => {
  let round = 0;
  let topic: string;
  beforeEach(() => {
    topic = `orders${++round}`;
  });

  async function listening(...flags: string[]): Promise<string> {
    const sent = messages();
    const args = ["listen", topic, "--descriptors", image, "--count", `${sent.length}`, "--quiet", ...flags];
    const listener = hawser(args, { databaseUrl: world.url });
    const listens = "SELECT FROM hawser_peer_data.listeners WHERE topic = $1";
    await eventually("it listens", async () => (await world.query(listens, [topic])).length === 1);
    const shop = await world.started(`shop-${round}`);
    for (const [payload, headers] of sent) await shop.send(topic, payload, { headers });
    const { status, stdout, stderr } = await listener;
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return stdout;
  }

  it("prints typed messages as protobuf JSON, and the others as they are, with a note", async () => {
    const lines = jsonLines(await listening("--json"));
    expect(lines).toMatchObject(asJson());
    expect(lines[2]).not.toHaveProperty("type");
    expect(lines[2]).not.toHaveProperty("note");
  });

  it("does so for people", async () => {
    const lines = (await listening()).trimEnd().split("\n");
    const starts = `${topic} shop-${round} `;
    const [, json] = lines[0]!.split(`${starts}acme.v1.OrderPlaced `);
    expect(JSON.parse(json!)).toEqual(value);
    expect(lines[1]).toBe(`${starts}acme.v1.OrderPlaced {"orderId":"18"}`);
    expect(lines[2]).toBe(`${starts}plain`);
    expect(lines[3]).toBe(`${starts}\\b\\u0001 (acme.v1.Unknown is not in ${image})`);
    expect(lines[4]).toContain(`${starts}base64 Csg= (does not decode as acme.v1.OrderPlaced: `);
  });
});

describe("hawser dead list --descriptors", () => {
  beforeAll(async () => {
    await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, () => {
      throw new Error("not today");
    });
    const sender = await world.started("a-1");
    for (const [payload, headers] of messages()) await sender.send("b", payload, { headers });
    const count = "SELECT FROM hawser_data.dead_letters";
    await eventually("all are dead", async () => (await world.query(count)).length === messages().length);
  });

  const dead = (...args: string[]) => hawser(["dead", ...args], { databaseUrl: world.url });

  it("prints typed payloads as protobuf JSON, and the others as they are, with a note", async () => {
    const { status, stdout } = await dead("list", "--json", "--payload", "--descriptors", image);
    expect(status).toBe(0);
    expect(jsonLines(stdout)).toMatchObject([...asJson()].reverse());
  });

  it("has a column for people", async () => {
    const [head, , , , third, , first] = (await dead("list", "--descriptors", image)).stdout.split("\n");
    expect(head).toMatch(/ERROR +PAYLOAD$/);
    expect(first).toMatch(/acme\.v1\.OrderPlaced \{"orderId":"17","cents":"18446744073709551615".*…$/);
    expect(third).toMatch(/plain$/);
  });

  it("is for payloads that are printed", async () => {
    const refused = { status: 64, stdout: "" };
    expect(await dead("list", "--json", "--descriptors", image)).toMatchObject({
      ...refused,
      stderr: expect.stringContaining("--descriptors with --json needs --payload"),
    });
    expect(await dead("retry", "1", "--descriptors", image)).toMatchObject({
      ...refused,
      stderr: expect.stringContaining("--descriptors goes with list"),
    });
    expect(await hawser(["listen", "b", "--descriptors", image, "--text"])).toMatchObject({
      ...refused,
      stderr: expect.stringContaining("--descriptors and --text exclude each other"),
    });
  });
});

describe("a file that is no image", () => {
  const written = (name: string, content: string | Uint8Array): string => {
    const file = join(directory, name);
    writeFileSync(file, content);
    return file;
  };
  const withoutImports = (): Uint8Array => {
    const file = set.file.filter(({ name }) => name === "order.proto");
    return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file }));
  };

  it.each([
    ["that is missing", () => join(directory, "nowhere.binpb"), /cannot be read: ENOENT/],
    ["that is a directory", () => directory, /cannot be read: it is not a regular file/],
    ["of text", () => written("order.txt", "message Order {}"), /is not an image/],
    ["without content", () => written("empty.binpb", ""), /is not an image, or is empty/],
    ["of JSON", () => written("image.json", '{"file": []}'), /is JSON or text; it must be binary/],
    [
      "that is compressed",
      () => written("image.binpb.gz", gzipSync("x")),
      /is compressed; it must be uncompressed binary/,
    ],
    [
      "without imports",
      () => written("part.binpb", withoutImports()),
      /lacks imports of its files \(.*imported by order\.proto/,
    ],
  ])("%s is refused, with the command that makes one", async (_, file, why) => {
    const { status, stderr } = await hawser(["listen", "b", "--descriptors", file()], { databaseUrl: world.url });
    expect(status).toBe(64);
    expect(stderr).toMatch(why);
    expect(stderr).toContain(`--descriptors "${file()}": `);
    expect(stderr).toContain("buf build -o image.binpb");
  });
});
