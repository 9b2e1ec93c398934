"""What listens for other hosts: mutual TLS, and the gateway between the sites and Flower's SuperLink."""
