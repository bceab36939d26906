"""THE CORE: eligibility, exclusion, scoring, pricing, selection. Pure."""
