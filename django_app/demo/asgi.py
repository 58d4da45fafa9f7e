"""The ASGI application: `granian --working-dir django_app --interface asgi demo.asgi:application`."""

import os

from django.core.asgi import get_asgi_application
from molt_accel.django.asgi import admission

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

application = admission(get_asgi_application())
