import { resolve } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import standalone from "ajv/dist/standalone/index.js";
import { buildSync } from "esbuild";
import type { OptionsModel } from "./model.js";

/**
 * Ajv's validator as one module without imports and without eval.
 *
 * Ajv's standalone code still calls `require` for its helpers, which ES modules do not have: esbuild puts them in. The
 * result is JavaScript in a .ts file, so that tsc copies it into the package with the rest.
 */
export function printValidator(model: OptionsModel): string {
  const ajv = new Ajv2020({
    allErrors: true,
    // `not` and `then` name options that the schema's own `properties` define, a level above.
    strictRequired: false,
    strictTypes: false,
    code: { source: true, esm: true, lines: true },
  });
  const code = standalone.default(ajv, ajv.compile(model.bareSchema));
  const bundle = buildSync({
    // The bundle names its modules relative to this folder, which must not depend on where buf was started.
    absWorkingDir: resolve(import.meta.dirname, "../.."),
    stdin: { contents: code, resolveDir: import.meta.dirname, sourcefile: "validator.js" },
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["main"],
    charset: "utf8",
    legalComments: "none",
    write: false,
  });
  return `// Includes helpers of Ajv (MIT licence).
// @ts-nocheck
${withoutPaths(bundle.outputFiles[0]!.text)}`;
}

/** esbuild notes where each piece came from, which depends on the machine. */
function withoutPaths(code: string): string {
  return code.replace(/^\/\/ .*\n/gm, "");
}
