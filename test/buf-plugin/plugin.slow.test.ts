/**
 * The check plugin, run by buf.
 */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodeProgram } from "../support/built-programs.js";

const require = createRequire(import.meta.url);
const bufScript = require.resolve("@bufbuild/buf/bin/buf");
const project = fileURLToPath(new URL("../..", import.meta.url));
const { execArgv, file } = nodeProgram("src/protobuf/buf-plugin/main.ts");
const plugin = ["node", ...execArgv, file];

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hawser-buf-plugin-"));
  await cp(join(project, "proto/options"), join(folder, "options"), { recursive: true });
  await mkdir(join(folder, "proto/acme/v1"), { recursive: true });
  await writeFile(
    join(folder, "buf.yaml"),
    `version: v2
modules:
  - path: proto
  - path: options/topic
  - path: options/validate
    lint:
      except: [PACKAGE_VERSION_SUFFIX]
lint:
  use: [STANDARD, HAWSER_SCHEMA]
breaking:
  use: [FILE, HAWSER_SAME_TOPIC]
plugins:
  - plugin: ${JSON.stringify(plugin)}
`,
  );
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const orders = (option: string, rule = "string.min_len = 1") => `syntax = "proto3";

package acme.v1;

import "buf/validate/validate.proto";
import "hawser/v1/topic.proto";

message Outer {
  map<string, string> entries = 1;
  message OrderPlaced {
    ${option}
    string order_id = 1 [(buf.validate.field).${rule}];
    string tenant = 2;
  }
}
`;

/** Runs buf. Resolves with its output, a line for each violation. */
async function buf(...args: string[]): Promise<string[]> {
  return await new Promise((resolve, reject) => {
    execFile(process.execPath, [bufScript, ...args], { cwd: folder }, (error, stdout, stderr) => {
      if (error !== null && stdout === "") reject(new Error(stderr));
      // It ends with the name of the plugin.
      else
        resolve(
          stdout
            .split("\n")
            .filter((line) => line !== "")
            .map((line) => line.replace(/ \(node\)$/, "")),
        );
    });
  });
}

const write = (text: string) => writeFile(join(folder, "proto/acme/v1/orders.proto"), text);
const option = (text: string) => `option (hawser.v1.topic) = {${text}};`;
const before = 'topic: "orders" subject: "orders.{tenant}" key: "order_id"';

it("the plugin lets buf breaking refuse a changed topic, subject, stream, key or id, and nothing else", async () => {
  await write(orders(option(before)));
  await buf("build", "proto", "-o", "before.binpb");
  expect(await buf("lint", "proto")).toEqual([]);
  const changes = async (text: string): Promise<string[]> => {
    await write(orders(text));
    const lines = await buf("breaking", "proto", "--against", "before.binpb");
    return lines.map((line) => line.replace(/^proto\/acme\/v1\/orders.proto:10:3:acme.v1.Outer.OrderPlaced: /, ""));
  };
  expect(await changes(`${option(before)} // the same`)).toEqual([]);
  expect(await changes(option(before.replace('topic: "orders"', 'topic: "order"')))).toEqual([
    'its topic changes from "orders" to "order"; receivers of the old topic would get no more messages',
  ]);
  expect(await changes(option('topic: "orders" subject: "orders.placed" stream: true message_id: "order_id"'))).toEqual(
    [
      'its key is removed (it was "order_id"); messages with one key would lose their order while both versions are in use',
      'its message_id is set to "order_id"; a stream would store a message again that it has under the old id',
      "its stream changes from false to true; publishers and readers must use the same setting",
      'its subject changes from "orders.{tenant}" to "orders.placed"; receivers of the old subject would get no more messages',
    ],
  );
  expect(await changes("")).toEqual([
    "its option (hawser.v1.topic) was removed; its receivers would get no more messages",
  ]);
});

it("the plugin lets buf lint refuse what Hawser cannot use", async () => {
  await write(orders(option('subject: "orders.{city}"')));
  const place = "proto/acme/v1/orders.proto:10:3:acme.v1.Outer.OrderPlaced";
  expect(await buf("lint", "proto")).toEqual([
    `${place}: subject: it has no field "city"; its fields are order_id, tenant`,
  ]);
  await write(orders(option(before), 'string.pattern = "a"'));
  expect(await buf("lint", "proto")).toEqual([
    `${place}.order_id: rule string.pattern: "a" must begin with ^ and end with $, so that it matches the whole string`,
  ]);
});
