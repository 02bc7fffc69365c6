import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { filesByArea, typescriptHead } from "../print.js";
import { importLine } from "../validators/imports.js";
import { userSettings } from "./user-settings.js";
import { constantsObject } from "./values.js";

/** `<area>.ts` for each package with settings: types, defaults, ranges and checks, and objects of constants. */
export function generateSettings(spec: Spec): GeneratedFile[] {
  return filesByArea(spec).flatMap(([area, files]) => {
    const sources = files.filter((file) => file.settingGroups.length > 0);
    return sources.length === 0 ? [] : [{ path: `${area}.ts`, content: settingsModule(sources) }];
  });
}

function settingsModule(sources: readonly SpecFile[]): string {
  const groups = sources.flatMap((file) => file.settingGroups);
  const body = groups.map((group) => (group.fixed ? constantsObject(group) : userSettings(group)));
  const imports = groups.every((group) => group.fixed) ? [] : [importLine(body, "../rules/violation.js")];
  return [typescriptHead("codegen/settings", sources), ...imports, ...body].join("\n");
}
