import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { checkNatsServerOptions } from "../../src/nats/connections/index.js";
import { strangersAmong } from "../../src/nats/serve/serve-options.js";
import { temporaryDirectory } from "../support/temporary.js";

function options(given: Record<string, unknown>): CompleteNatsServerOptions {
  const result = checkNatsServerOptions({ host: "nats.internal", ...given });
  if (!result.ok) throw new Error(result.violation.message);
  return result.options;
}

it("a directory of secrets holds strangers: what no option names, hidden files aside", async () => {
  const directory = temporaryDirectory();
  for (const name of ["nats-token", "db-password"]) writeFileSync(join(directory, name), "x");
  mkdirSync(join(directory, "..2026_11_20"));
  mkdirSync(join(directory, "hawser"));
  mkdirSync(join(directory, "kubernetes.io"));
  const named = options({
    token_path: join(directory, "nats-token"),
    tls_ca_path: `${directory}//hawser/ca.pem`,
  });
  expect((await strangersAmong(directory, named)).sort()).toEqual(["db-password", "kubernetes.io"]);
  expect(await strangersAmong(directory, undefined)).toHaveLength(4);
});

it("a directory that is not there holds none", async () => {
  expect(await strangersAmong(join(temporaryDirectory(), "missing"), undefined)).toEqual([]);
});
