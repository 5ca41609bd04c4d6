// Steps of a session, one JSON line each way: {step, …arguments} in, {answer} or {refused: {kind, status, code}} out.
import { createInterface } from "node:readline";

export const QUESTION = "What is the weather in Paris?";
export const DESCRIPTION = "Say what the weather is in a city.";
export const FUNCTION = "get_weather";
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export function weatherIn({ city }) {
  if (city !== "Paris") throw new Error(`asked for the weather in ${city}`);
  return "sunny";
}

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
