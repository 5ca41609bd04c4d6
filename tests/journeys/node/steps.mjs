// Steps of a session, one JSON line each way: {step, …arguments} in, {answer} or {refused: {kind, status, code}} out.
import { createInterface } from "node:readline";

/** The function of a tool, which gives its result where it is called as it should be. */
export const weatherAs = (result) => ({ city }) => {
  if (city !== "Paris") throw new Error(`asked for the weather in ${city}`);
  return result;
};

/** `refusalOf` gives the refusal of an error that is the client's, and nothing for any other. */
export async function serve(steps, refusalOf) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, ...given } = JSON.parse(line);
    let said;
    try {
      said = { answer: await steps[step](given) };
    } catch (error) {
      said = { refused: refusalOf(error) };
      if (!said.refused) throw error;
    }
    process.stdout.write(`${JSON.stringify(said)}\n`);
  }
}
