import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { markdownHead } from "../print.js";
import { messagesWithRules } from "../validators/frames.js";
import { catalogSection } from "./catalog-page.js";
import { errorsSections } from "./errors-page.js";
import { framesSection } from "./frames-page.js";
import { settingsSections } from "./settings-page.js";

/** The reference pages: `frames.md`, `catalog.md`, `settings.md` and `errors.md`, each if the spec has such things. */
export function generateDocs(spec: Spec): GeneratedFile[] {
  const checked = messagesWithRules(spec.files.flatMap((file) => file.messages));
  return [
    ...page(
      "frames.md",
      "Frames",
      spec.files.filter((file) => file.messages.some((message) => checked.has(message.desc.typeName))),
      framesSection,
    ),
    ...page(
      "catalog.md",
      "Catalog",
      spec.files.filter((file) => file.tables.length + file.functionGroups.length > 0),
      catalogSection,
    ),
    ...page(
      "settings.md",
      "Settings",
      spec.files.filter((file) => file.settingGroups.length > 0),
      (file) => settingsSections(file, "of users"),
      (file) => settingsSections(file, "fixed"),
    ),
    ...page(
      "errors.md",
      "Errors",
      spec.files.filter((file) => file.errorTables.length > 0),
      errorsSections,
    ),
  ];
}

function page(
  path: string,
  title: string,
  sources: readonly SpecFile[],
  ...sections: readonly ((file: SpecFile) => string)[]
): GeneratedFile[] {
  if (sources.length === 0) {
    return [];
  }
  const parts = sections.flatMap((section) => sources.map(section)).filter((part) => part !== "");
  const content = [markdownHead("codegen/docs", sources), `# ${title}\n`, ...parts].join("\n");
  return [{ path, content }];
}
