/**
 * Compiles Hawser and the benchmarks before a measurement, as users run compiled code: tsx keeps the names of functions, which
 * makes each closure cost more.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { BenchFailure } from "./suite.js";
import { compiledFolder, thisCheckout } from "./worker.js";

/** Compiles a checkout, into a folder of its own. @throws BenchFailure if it has errors */
export async function compile(checkout: string, signal: AbortSignal): Promise<void> {
  const folder = fileURLToPath(checkout);
  const project = checkout === thisCheckout ? "tsconfig.bench.json" : "tsconfig.build.json";
  const incremental = ["--incremental", "--tsBuildInfoFile", `${compiledFolder}.tsbuildinfo`];
  const tsc = spawn("node_modules/.bin/tsc", ["-p", project, "--outDir", compiledFolder, ...incremental], {
    cwd: folder,
    stdio: ["ignore", 2, 2],
    signal,
  });
  const [status] = await once(tsc, "close", { signal });
  if (status !== 0) throw new BenchFailure(`${folder} cannot be compiled; see the errors above`);
}
