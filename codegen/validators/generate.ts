import { readFileSync } from "node:fs";
import { TakenNames } from "../model/duplicates.js";
import { baseNameOf } from "../model/names.js";
import type { Spec } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { filesByArea, typescriptHead } from "../print.js";
import { catalogModule } from "./catalog-module.js";
import { framesModule } from "./frames-module.js";
import { messagesWithRules } from "./message-validator.js";

/**
 * `<area>/<file>.ts` for each file with messages that have rules, `<area>/<file>.ts` for each file with tables, and
 * `violation.ts`, on which they stand.
 */
export function generateValidators(spec: Spec): GeneratedFile[] {
  const checked = messagesWithRules(spec.files.flatMap((file) => file.messages));
  const paths = new TakenNames("generated file");
  const modules = filesByArea(spec).flatMap(([area, files]) =>
    files.flatMap((file) => {
      const hasMessages = file.messages.some((message) => checked.has(message.desc.typeName));
      const path = `${area}/${baseNameOf(file.file.proto.name)}`;
      const made = [
        ...(hasMessages ? [{ path: `${path}.ts`, content: framesModule(file, checked) }] : []),
        ...(file.tables.length > 0
          ? [{ path: `${path}${hasMessages ? "-rows" : ""}.ts`, content: catalogModule(file, area) }]
          : []),
      ];
      for (const one of made) {
        paths.take(one.path, file.file);
      }
      return made;
    }),
  );
  return [
    { path: "violation.ts", content: `${typescriptHead("codegen/validators", [runtimeFile])}\n${runtime()}` },
    ...modules,
  ];
}

const runtimeFile = "codegen/validators/runtime/violation.ts";

/** The part that no spec changes, kept as a file of its own so that it is compiled and checked like any other. */
function runtime(): string {
  return readFileSync(new URL(`../../${runtimeFile}`, import.meta.url), "utf8");
}
