# The image of the worker and of Flower: see docker-compose.yml.
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY multiagents ./multiagents
RUN pip install --no-cache-dir ".[flower]"

COPY celery_app.py ./
COPY workers ./workers
COPY examples ./examples

RUN useradd --create-home celery && chown celery /app
USER celery
CMD ["celery", "-A", "celery_app", "worker", "--loglevel=INFO", "--events"]
