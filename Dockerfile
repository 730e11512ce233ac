# The image of the worker, of Flower and of the stand-in for a model: see docker-compose.yml. It has no key of anything: keys
# come from the environment of the container.
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY multiagents ./multiagents
RUN pip install --no-cache-dir ".[demo,flower]"

COPY celery_app.py run_examples.py ./
COPY workers ./workers
COPY examples ./examples

# What the examples write lies in .multiagents.
RUN useradd --create-home celery && mkdir .multiagents && chown celery . .multiagents
USER celery
CMD ["celery", "-A", "celery_app", "worker", "--loglevel=INFO", "--events"]
