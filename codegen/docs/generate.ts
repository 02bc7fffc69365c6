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
  const page = (title: string, declares: (file: SpecFile) => boolean, print: (file: SpecFile) => string) => {
    const sources = spec.files.filter(declares);
    const parts = sources.map(print).filter((part) => part !== "");
    return sources.length === 0 ? [] : [pageOf(title, sources, parts)];
  };
  return [
    ...page("Frames", ({ messages }) => messages.some(({ desc }) => checked.has(desc.typeName)), framesSection),
    ...page("Catalog", (file) => file.tables.length + file.functionGroups.length > 0, catalogSection),
    ...settingsPage(spec),
    ...page("Constants", (file) => file.settingGroups.some(({ fixed }) => fixed), constantsSections),
    ...page("Metrics", (file) => file.metricGroups.length > 0, metricsSections),
    ...page("Errors", (file) => file.errorTables.length > 0, errorsSections),
  ];
}

/** Settings page for users, ordered by part; the other pages are ordered by file. */
function settingsPage(spec: Spec): GeneratedFile[] {
  const sections = settingsOfUsers(spec.files, spec.namedRules);
  const sources = spec.files.filter((file) => file.settingGroups.length > 0);
  return sections.length === 0 ? [] : [pageOf("Settings", sources, sections)];
}

function pageOf(title: string, sources: readonly SpecFile[], sections: readonly string[]): GeneratedFile {
  const content = [markdownHead("codegen/docs", sources), `# ${title}\n`, ...sections].join("\n");
  return { path: `${title.toLowerCase()}.md`, content };
}
