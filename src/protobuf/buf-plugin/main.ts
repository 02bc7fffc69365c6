#!/usr/bin/env node
/**
 * `buf-plugin-hawser`: check plugin for `buf lint` and `buf breaking`. Options and exit statuses follow pluginrpc,
 * protocol 1.
 */
import { parseArgs } from "node:util";
import { errorMessageOf } from "../../foundation/errors/index.js";
import { checkFiles, rules } from "./checks.js";
import {
  type Result,
  readCheckRequest,
  writeCategories,
  writeCheckResponse,
  writeRules,
  writeSpec,
} from "./messages.js";

const paths = {
  "/buf.plugin.check.v1.CheckService/Check": (request: Uint8Array): Uint8Array => check(request),
  "/buf.plugin.check.v1.CheckService/ListRules": (): Uint8Array => writeRules(rules),
  "/buf.plugin.check.v1.CheckService/ListCategories": (): Uint8Array => writeCategories(),
} as const;

function check(request: Uint8Array): Uint8Array {
  let result: Result;
  try {
    result = { annotations: checkFiles(readCheckRequest(request)) };
  } catch (error) {
    result = { error: errorMessageOf(error) };
  }
  return writeCheckResponse(result);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { protocol: { type: "boolean" }, spec: { type: "boolean" }, format: { type: "string" } },
    allowPositionals: true,
  });
  if (values.protocol) {
    process.stdout.write("1\n");
    return 0;
  }
  if (values.format !== undefined && values.format !== "binary") {
    process.stderr.write(`--format ${values.format}: this plugin supports only the format binary\n`);
    return 1;
  }
  if (values.spec) {
    process.stdout.write(writeSpec(Object.keys(paths)));
    return 0;
  }
  const answer = paths[positionals[0] as keyof typeof paths];
  if (answer === undefined) {
    process.stderr.write("buf-plugin-hawser is a plugin of buf: name it in buf.yaml, as docs/typed.md shows\n");
    return 64;
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  process.stdout.write(answer(Buffer.concat(chunks)));
  return 0;
}

process.exitCode = await main();
