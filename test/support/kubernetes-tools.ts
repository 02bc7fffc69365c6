/**
 * Tools for charts: helm, of PATH or built by the Go toolchain, and kubernetes-validate of PyPI, which brings Kubernetes'
 * schemas. Both are kept in the cache.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram } from "../../src/development/dev/server-process.js";
import { kept } from "./kept.js";

const run = promisify(execFile);
const helmVersion = "v3.19.0";
const validateVersion = "1.37.0";
const installTimeoutMs = 1_500_000;

/** Path of helm; a promise that rejects has the reason why there is none. */
export async function findHelm(): Promise<string> {
  const onPath = findProgram("helm");
  if (onPath !== undefined) return onPath;
  return kept(`helm/${helmVersion}-${process.platform}-${process.arch}`, "helm", async (directory) => {
    await run("go", ["install", "-trimpath", `helm.sh/helm/v3/cmd/helm@${helmVersion}`], {
      cwd: directory,
      env: { ...process.env, GOBIN: directory, GOFLAGS: "-mod=mod" },
      timeout: installTimeoutMs,
    });
  });
}

/** Arguments of Python for kubernetes-validate: its program has the path of the directory that it was made in. */
export async function findKubernetesValidate(): Promise<{ readonly python: string; readonly path: string }> {
  const python = findProgram("python3");
  if (python === undefined) throw new Error("there is no python3 on PATH");
  const place = `kubernetes-validate/${validateVersion}-${process.platform}-${process.arch}`;
  const path = await kept(place, "packages", async (directory) => {
    const target = join(directory, "packages");
    await run(
      python,
      ["-m", "pip", "install", "--quiet", "--target", target, `kubernetes-validate==${validateVersion}`],
      {
        timeout: installTimeoutMs,
      },
    );
  });
  return { python, path };
}
