/**
 * `hawser doctor`: what is wrong with an installation, and what to do about it.
 */
export { doctor } from "./doctor.js";
export type { DoctorOptions } from "./facts.js";
export type { CheckReport, DoctorReport, NamedFinding, Severity } from "./finding.js";
