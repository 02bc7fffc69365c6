/**
 * How many random inputs a test tries: `npm test` a tenth of what `npm run test:all` does.
 *
 * @param count how many `npm run test:all` tries
 */
export function atDepth(count: number): number {
  return Math.max(1, Math.round(count * Number(process.env["HAWSER_TEST_DEPTH"] ?? 1)));
}
