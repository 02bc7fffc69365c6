/**
 * nats-server built from its source by the Go toolchain, which verifies what it downloads by Go's checksum database.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { DevError } from "../../errors/index.js";
import { findProgram } from "../find-program.js";
import type { FetchedProgram, NatsSource } from "./binary.js";
import { NATS_SERVER_VERSION } from "./official-release.js";

/** Compiling takes a minute or two on two cores. */
const BUILD_TIMEOUT_MS = 600_000;

/**
 * `go install` of a version, by default the same as the official release.
 *
 * @param version whatever Go takes behind `@v`: `2.9` is the newest 2.9
 */
export function goInstall(version = NATS_SERVER_VERSION): NatsSource {
  return {
    name: `go install of version ${version}`,
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const go = findProgram("go");
      if (go === undefined) throw new DevError("not_supported", "no Go toolchain is on PATH");
      await promisify(execFile)(go, ["install", `github.com/nats-io/nats-server/v2@v${version}`], {
        cwd: directory,
        // Without cgo the program depends on nothing, and building it needs no C compiler.
        env: { ...process.env, GOBIN: directory, CGO_ENABLED: "0" },
        timeout: BUILD_TIMEOUT_MS,
        ...(signal && { signal }),
      });
      yield {
        program: join(directory, "nats-server"),
        origin: "built by go install, verified by Go's checksum database",
      };
    },
  };
}
