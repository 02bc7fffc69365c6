/** Data of the page, without its rendering: what `hawser page` and other views of an installation show. */
export { type Abilities, readAbilities } from "./abilities.js";
export { age } from "./age.js";
export { type Job, type JobAction, Jobs, undoMs } from "./jobs.js";
export { type Reading, reading } from "./reading.js";
export {
  examinedDeadLetters,
  readSnapshot,
  type Sections,
  type Snapshot,
  sections,
  shownRows,
  snapshotRows,
} from "./sections.js";
export { type ShownVerdict, Verdicts } from "./verdict.js";
