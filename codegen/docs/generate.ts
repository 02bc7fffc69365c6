import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { markdownHead } from "../print.js";
import { messagesWithRules } from "../validators/frames.js";
import { catalogSection } from "./catalog-page.js";
import { errorsSections } from "./errors-page.js";
import { framesSection } from "./frames-page.js";
import { metricsSections } from "./metrics-page.js";
import { constantsSections, settingsOfUsers } from "./settings-page.js";

/**
 * Generates the reference pages `frames.md`, `catalog.md`, `settings.md`, `constants.md`, `metrics.md` and `errors.md`,
 * each if the spec has content for it.
 */
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
    ...settingsPage(spec),
    ...page(
      "constants.md",
      "Constants",
      spec.files.filter((file) => file.settingGroups.some(({ fixed }) => fixed)),
      constantsSections,
    ),
    ...page(
      "metrics.md",
      "Metrics",
      spec.files.filter((file) => file.metricGroups.length > 0),
      metricsSections,
    ),
    ...page(
      "errors.md",
      "Errors",
      spec.files.filter((file) => file.errorTables.length > 0),
      errorsSections,
    ),
  ];
}

/** Settings page for users, ordered by part; the other pages are ordered by file. */
function settingsPage(spec: Spec): GeneratedFile[] {
  const sections = settingsOfUsers(spec.files, spec.namedRules);
  const sources = spec.files.filter((file) => file.settingGroups.length > 0);
  return sections.length === 0 ? [] : [{ path: "settings.md", content: pageText("Settings", sources, sections) }];
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
  return [{ path, content: pageText(title, sources, parts) }];
}

function pageText(title: string, sources: readonly SpecFile[], sections: readonly string[]): string {
  return [markdownHead("codegen/docs", sources), `# ${title}\n`, ...sections].join("\n");
}
