// @ts-check
// Buttons and forms that do one thing at a time, and say beside them what went wrong.

/**
 * @param {HTMLElement} problem where it is said
 */
export function acts(problem) {
  /** @param {unknown} error */
  function complain(error) {
    problem.textContent = error instanceof Error ? error.message : String(error);
    problem.hidden = false;
  }

  /**
   * @param {HTMLButtonElement} button off meanwhile
   * @param {() => Promise<void>} act
   */
  async function once(button, act) {
    button.disabled = true;
    await act().catch(complain);
    button.disabled = false;
  }

  return {
    complain,
    /**
     * @param {HTMLButtonElement} button
     * @param {() => Promise<void>} act
     */
    onClick(button, act) {
      button.addEventListener("click", () => once(button, act));
    },
    /**
     * @param {HTMLFormElement} form
     * @param {() => Promise<void>} act
     */
    onSubmit(form, act) {
      const button = /** @type {HTMLButtonElement} */ (form.querySelector("button[type=submit]"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        problem.hidden = true;
        once(button, act);
      });
    },
  };
}
